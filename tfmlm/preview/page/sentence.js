// Takes a sentence apart at its masks, and puts words in their place.

/**
 * The text around the first masks.
 * @param {string} text
 * @param {string} mask how the text writes a mask
 * @param {number} count masks that were answered; later ones stay in the last part
 * @returns {string[]} one part more than masks; if the text has fewer masks, they do not compose to it
 */
export function divide(text, mask, count) {
  const parts = text.split(mask);
  const missing = Array(Math.max(0, count - parts.length)).fill("");
  return [...parts.slice(0, count), ...missing, parts.slice(count).join(mask)];
}

/**
 * The sentence with the chosen words, and masks where none is chosen.
 * @param {string[]} parts
 * @param {({token: string} | undefined)[]} chosen
 * @param {string} mask
 */
export function compose(parts, chosen, mask) {
  const [first, ...rest] = parts;
  return rest.reduce(
    (text, part, index) => (chosen[index] ? join(text, chosen[index].token) : text + mask) + part,
    first,
  );
}

/** WordPiece marks a piece that continues a word by ##; byte-level words bring the space before them along. */
function join(before, token) {
  if (/^##[^#\s]/u.test(token)) return before.trimEnd() + token.slice(2);
  if (!/\S/u.test(token)) return before + token;
  return before + (/\S$/u.test(before) ? token : token.trimStart());
}
