// Fills the masks of a sentence by the server's REST interface and shows the candidates as bars.

import { divide, compose } from "./sentence.js";

const at = (id) => document.getElementById(id);
const [form, sentence, insert, fillButton] = ["form", "sentence", "insert", "fill"].map(at);
const [versions, message, results] = ["versions", "message", "results"].map(at);

const EXAMPLE = "The … of the model to load.";

const CONTEXT_WORDS = 6;

const NO_TEXTS =
  "This version takes token ids and no texts. To export one that takes texts, or be told why that cannot be:\n" +
  "tfmlm export RUN export.text_signature=require";

/** The served model as page/model.json tells it: {name, versions: [{version, mask_token, …}]}, newest first. */
let model = { name: "", versions: [] };

/** The one of `model.versions` that answers. */
let used = null;

/** How the sentence writes a mask. */
let maskToken = "";

/** What is shown: {text, parts, masks: [[{token, score}]], chosen: [candidate or undefined]}. */
let shown = null;

/** Stops the request that is under way. */
let running = new AbortController();

// === The server ===

class ServerError extends Error {
  constructor(text, status) {
    super(text);
    this.status = status;
  }
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server does not answer. Is tfmlm serve still running?");
  }
  const answer = await response.json().catch((error) => {
    if (error.name === "AbortError") throw error;
    return {};
  });
  if (!response.ok) {
    throw new ServerError(answer.error ?? `The server answered HTTP ${response.status}.`, response.status);
  }
  return answer;
}

/** Candidates of each answered mask, best first, and what the export had to say. */
async function predict(version, text, signal) {
  const path = `v1/models/${encodeURIComponent(model.name)}/versions/${version}:predict`;
  const body = JSON.stringify({ signature_name: "text", inputs: { texts: [text] } });
  const { outputs } = await ask(path, { method: "POST", body, signal });
  const [positions, tokens, scores] = [outputs.positions[0], outputs.tokens[0], outputs.scores[0]];
  const masks = positions.flatMap((position, mask) =>
    position < 0 ? [] : [tokens[mask].map((token, rank) => ({ token, score: scores[mask][rank] }))],
  );
  return { masks, note: outputs.notes[0] };
}

// === The model and its versions ===

/** Reads what is served now; the chosen version stays if it was not the newest and is still there. */
async function readModel() {
  const kept = versions.selectedIndex > 0 ? versions.value : null;
  model = await ask("page/model.json");
  const newest = model.versions[0].version;
  versions.replaceChildren(
    ...model.versions.map(({ version }) => new Option(version === newest ? `${version} (newest)` : version, version)),
  );
  versions.value = model.versions.some(({ version }) => version === kept) ? kept : newest;
  at("name").textContent = model.name;
  document.title = `${model.name}: fill in the mask`;
  const several = model.versions.length > 1;
  versions.hidden = !several;
  at("only-version").textContent = several ? "" : newest;
  at("version").hidden = false;
}

/** Asks the version that is selected from now on. */
function useVersion() {
  running.abort();
  if (shown && sentence.value === composeShown()) sentence.value = shown.text;
  used = model.versions[versions.selectedIndex];
  for (const element of [sentence, insert, fillButton]) element.disabled = !used.text_signature;
  if (!used.text_signature) {
    clearResults();
    say(NO_TEXTS, "error");
    return;
  }
  const previous = maskToken;
  maskToken = used.mask_token;
  insert.textContent = `Insert ${maskToken}`;
  if (previous) sentence.value = sentence.value.replaceAll(previous, maskToken);
  else sentence.value = EXAMPLE.replace("…", maskToken);
  fill();
}

// === What is shown ===

function say(text, kind = "") {
  message.textContent = text;
  message.dataset.kind = kind;
}

function clearResults() {
  shown = null;
  results.replaceChildren();
  results.setAttribute("aria-busy", "false");
}

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

function formatShare(score) {
  const share = 100 * score;
  if (share < 0.1) return "< 0.1 %";
  return `${share.toFixed(share < 9.95 ? 1 : 0)} %`;
}

/** A piece that continues a word is shown as one, and white space by its name. */
function describeToken(token) {
  if (!/\S/u.test(token)) return "(white space)";
  return token.trim().replace(/^##(?=[^#\s])/u, "…");
}

function makeCandidate(mask, candidate) {
  const [word, share] = [describeToken(candidate.token), formatShare(candidate.score)];
  const bar = make("span", "bar");
  bar.style.width = `${100 * candidate.score}%`;
  const label = make("span", "word", word);
  label.dir = "auto";
  const button = make("button", "candidate", label, make("span", "track", bar), make("span", "share", share));
  button.type = "button";
  button.dataset.score = candidate.score;
  button.setAttribute("aria-label", `${word} ${share}`);
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => choose(mask, candidate));
  return button;
}

/** The words around a mask, so that several masks can be told apart. */
function makeContext(mask) {
  const around = [shown.parts.slice(0, mask + 1), shown.parts.slice(mask + 1)];
  const [before, after] = around.map((parts) => parts.join(maskToken).split(/(\s+)/u));
  const most = 2 * CONTEXT_WORDS; // with the white space between them
  const context = make(
    "p",
    "",
    before.length > most ? "… " : "",
    before.slice(-most).join(""),
    make("mark", "", maskToken),
    after.slice(0, most).join(""),
    after.length > most ? " …" : "",
  );
  context.dir = "auto";
  return context;
}

function showResults() {
  const { masks } = shown;
  results.replaceChildren(
    ...masks.map((candidates, mask) => {
      const title = make("h2", "", masks.length > 1 ? `Mask ${mask + 1} of ${masks.length}` : "Candidates");
      title.id = `mask-${mask + 1}`;
      const list = make("ol", "", ...candidates.map((each) => make("li", "", makeCandidate(mask, each))));
      list.setAttribute("aria-labelledby", title.id);
      return make("section", "mask", title, ...(masks.length > 1 ? [makeContext(mask)] : []), list);
    }),
  );
}

const composeShown = () => compose(shown.parts, shown.chosen, maskToken);

// === What a person does ===

/** Puts a word into the sentence in place of its mask; the same word again takes it out. */
function choose(mask, candidate) {
  shown.chosen[mask] = shown.chosen[mask] === candidate ? undefined : candidate;
  sentence.value = composeShown();
  results.querySelectorAll("ol").forEach((list, index) =>
    list.querySelectorAll("button").forEach((button, rank) => {
      const isChosen = shown.chosen[index] !== undefined && shown.masks[index][rank] === shown.chosen[index];
      button.setAttribute("aria-pressed", String(isChosen));
    }),
  );
}

/** Candidates for another sentence cannot be filled in. */
function noticeEdit() {
  const isStale = shown !== null && sentence.value !== composeShown();
  for (const button of results.querySelectorAll("button")) button.disabled = isStale;
}

async function fill() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  const [text, { version }] = [sentence.value, used];
  results.setAttribute("aria-busy", "true");
  const start = performance.now();
  try {
    const { masks, note } = await predict(version, text, signal);
    if (signal.aborted) return;
    const milliseconds = Math.max(1, Math.round(performance.now() - start));
    shown = { text, parts: divide(text, maskToken, masks.length), masks, chosen: [] };
    showResults();
    noticeEdit();
    const said = note && `${note[0].toUpperCase()}${note.slice(1)}.`;
    if (masks.length) say(`${said} Version ${version} answered in ${milliseconds} ms.`.trim(), note && "note");
    else say(said, "note");
  } catch (error) {
    if (signal.aborted) return;
    if (!(error instanceof ServerError)) throw error;
    clearResults();
    say(error.message, "error");
    if (error.status === 404) await refresh();
  } finally {
    if (!signal.aborted) results.setAttribute("aria-busy", "false");
  }
}

/** Follows versions that come and go while the page is open. */
async function refresh() {
  try {
    await readModel();
  } catch (error) {
    if (!(error instanceof ServerError)) throw error;
    say(error.message, "error");
    return;
  }
  if (versions.value !== used?.version) useVersion();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  fill();
});

sentence.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  fill();
});

sentence.addEventListener("input", noticeEdit);

insert.addEventListener("click", () => {
  sentence.setRangeText(maskToken, sentence.selectionStart, sentence.selectionEnd, "end");
  sentence.focus();
  noticeEdit();
});

document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") refresh();
});

versions.addEventListener("change", useVersion);

await refresh();
