"""Lets a tokenizer's vocabulary grow by given words, and by those pieces of a text that save the most tokens.

Pieces become entries of the tokenizer's own model, behind those that it has, so that the normalizer, the
words' borders and the search for pieces treat them like the others:

- byte-level BPE: an entry and a merge of the last rank. All earlier merges are done before, so a word is cut
  as it was and then joined further.
- unigram: a piece whose score is the sum of the scores of the pieces that it replaces, and a little more for
  each token that it saves. So of cuts that were the most probable the one with the fewest tokens wins.
- WordPiece: an entry, `##` in front inside a word. The longest entry wins from the left, which may cut other
  words anew: pieces that save nothing, all words of the text counted, are taken out and others chosen.

Given words cannot be entries of a model: any of these would match at the beginning of longer words. They
become added tokens, as `add_tokens(AddedToken(word, single_word=True))` of transformers makes them. Where a
space belongs to the token behind it (BPE, unigram) a word takes the white space before it, as the mask does.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from tfmlm.data.new_pieces import Run, Word, choose_runs
from tfmlm.data.packing import StreamTokenizer
from tfmlm.data.tokenizers import count_ids, load_tokenizer, save_tokenizer_folder
from tfmlm.errors import UserError

_LOGGER = logging.getLogger(__name__)

_MOST_CHARACTERS = 2**26
"""Of the text that is looked at, from its beginning: 64 million, which take a minute or two."""

_LONGEST_RUN = 8
"""Tokens that become one piece at once."""

_ROUNDS = 4
"""Times that pieces which save nothing are taken out and others chosen."""

_BONUS = 1e-3
"""Added to a unigram piece's log probability for each token that it saves: far more than float64 rounds, far
less than pieces differ."""

_SHOWN = 8
"""Of the chosen pieces."""

_MEASURED_TEXTS = 1000
"""Held-out texts whose tokens are counted."""

_KINDS = ("BPE", "Unigram", "WordPiece")
_OTHER_BPE = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges")
_CONTINUES = "##"


class TokensAText(NamedTuple):
    """Mean number of tokens of a held-out text, special ones left out.

    Attributes:
        before: with the vocabulary as it was.
        after: with the new words.
        num_new: entries that the vocabulary has grown by.
    """

    before: float
    after: float
    num_new: int


def extend_tokenizer(
    tokenizer: PreTrainedTokenizerFast, words: list[str], num_pieces: int, texts: Iterable[list[str]]
) -> PreTrainedTokenizerFast:
    """A tokenizer with a larger vocabulary, whose first ids are those of the one given.

    Args:
        tokenizer: stays as it is.
        words: whole words to add.
        num_pieces: words and pieces of the text to add, at most.
        texts: batches of the training text, read if there are pieces to choose.

    Raises:
        UserError: the tokenizer is of another kind, or a word cannot be one.
    """
    _check_kind(tokenizer)
    extended = add_words(tokenizer, words)
    if not num_pieces:
        return extended
    runs = choose_pieces(tokenizer, count_words(extended, texts), num_pieces)
    some = ", ".join(run.piece for run in runs[:_SHOWN])
    _LOGGER.info("%s new words and pieces of the text%s", f"{len(runs):,}", f", such as {some}" * bool(runs))
    return add_words(add_pieces(tokenizer, runs), words)


def measure_tokens_a_text(
    before: PreTrainedTokenizerFast, after: PreTrainedTokenizerFast, texts: Iterable[list[str]]
) -> TokensAText:
    """Counts the tokens of the first texts, which should be held-out ones."""
    chosen: list[str] = []
    for batch in texts:
        chosen += batch[: _MEASURED_TEXTS - len(chosen)]
        if len(chosen) == _MEASURED_TEXTS:
            break
    means = [
        sum(len(tokens) for tokens in _copy_backend(each).encode_batch(chosen, add_special_tokens=False))
        / max(len(chosen), 1)
        for each in (before, after)
    ]
    return TokensAText(means[0], means[1], count_ids(after) - count_ids(before))


def find_origins(before: PreTrainedTokenizerFast, after: PreTrainedTokenizerFast) -> dict[int, list[int]]:
    """For each id that an extended tokenizer has beside the original's, the old ids of its text.

    Args:
        before: the tokenizer as it was.
        after: what `extend_tokenizer` made of it.
    """
    old = before.get_vocab()
    added = after.get_added_vocab()
    model = before.backend_tokenizer.model
    first, kind = count_ids(before), _find_kind(before)
    encode_word = _make_word_encoder(before)
    new = {token_id: token for token, token_id in after.get_vocab().items() if token_id >= first}
    origins = {}
    for token_id, token in sorted(new.items()):
        if token in added:
            origins[token_id] = encode_word(token)
        elif kind == "WordPiece":
            unknown = old[str(before.unk_token)]
            origins[token_id] = [old.get(piece, unknown) for piece in _cut_wordpiece(token, old)]
        else:
            origins[token_id] = [piece.id for piece in model.tokenize(token)]
    return origins


def is_extended(before: PreTrainedTokenizerFast, after: PreTrainedTokenizerFast) -> bool:
    """Whether a tokenizer has all that another has, under the same ids."""
    return set(before.get_vocab().items()) <= set(after.get_vocab().items())


# === Kinds ===


def _describe(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return dict(json.loads(tokenizer.backend_tokenizer.to_str()))


def _find_kind(tokenizer: PreTrainedTokenizerFast) -> str:
    return type(tokenizer.backend_tokenizer.model).__name__


def _copy_backend(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """Without the truncation and padding that came with a tokenizer."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend


def _check_kind(tokenizer: PreTrainedTokenizerFast) -> None:
    """Refuses tokenizers whose vocabulary is put together in a way that is not known here."""
    described = _describe(tokenizer)
    model = described["model"]
    keys = "tokenizer.added_tokens and tokenizer.extend_from_text"
    if _find_kind(tokenizer) not in _KINDS:
        raise UserError(f"{keys} need a tokenizer of {', '.join(_KINDS)}, and this one is {model['type']}")
    of_bpe = [option for option in _OTHER_BPE if model["type"] == "BPE" and model.get(option)]
    if of_bpe or (model["type"] == "BPE" and "ByteLevel" not in json.dumps(described["pre_tokenizer"])):
        what = f"one with {of_bpe[0]}" if of_bpe else "without bytes"
        raise UserError(f"{keys} need byte-level BPE, and this tokenizer's is {what}; leave them out")
    if model["type"] == "WordPiece" and model["continuing_subword_prefix"] != _CONTINUES:
        raise UserError(
            f"{keys} need a WordPiece tokenizer with {_CONTINUES!r} inside words, and this one has "
            f"{model['continuing_subword_prefix']!r}; leave them out"
        )
    if len(set(tokenizer.get_vocab().values())) != count_ids(tokenizer):
        raise UserError(
            f"{keys} need a tokenizer whose numbers have no gap, and this one has {len(tokenizer):,} tokens "
            f"and {count_ids(tokenizer):,} numbers; leave them out"
        )


def _join(tokens: tuple[str, ...]) -> str:
    return "".join(tokens)


def _join_wordpiece(tokens: tuple[str, ...]) -> str:
    return tokens[0] + "".join(token.removeprefix(_CONTINUES) for token in tokens[1:])


def _find_join(tokenizer: PreTrainedTokenizerFast) -> Callable[[tuple[str, ...]], str]:
    return _join_wordpiece if _find_kind(tokenizer) == "WordPiece" else _join


def _cut_wordpiece(entry: str, vocabulary: Mapping[str, int]) -> list[str]:
    """The longest entries from the left; of what continues a word too, which the model itself cannot cut."""
    prefix = _CONTINUES if entry.startswith(_CONTINUES) else ""
    text, pieces = entry.removeprefix(_CONTINUES), []
    while text:
        # A character that is no entry stands for itself.
        end = next((end for end in range(len(text), 0, -1) if prefix + text[:end] in vocabulary), 1)
        pieces.append(prefix + text[:end])
        text, prefix = text[end:], _CONTINUES
    return pieces


# === Whole words ===


def add_words(tokenizer: PreTrainedTokenizerFast, words: list[str]) -> PreTrainedTokenizerFast:
    """A copy with words as added tokens; those that are one token already are left out.

    Raises:
        UserError: a word is a special token, or nothing to the tokenizer.
    """
    extended = _reload(tokenizer)
    normalizer = tokenizer.backend_tokenizer.normalizer
    encode_word = _make_word_encoder(tokenizer)
    takes_space = _find_kind(tokenizer) != "WordPiece"
    new, known = [], []
    for word in words:
        # As an uncased tokenizer has it, so that it is written like all other words.
        content = normalizer.normalize_str(word) if normalizer else word
        if {word, content} & {*tokenizer.all_special_tokens}:
            raise UserError(f"tokenizer.added_tokens holds {word!r}, a special token; leave it out")
        ids = encode_word(content)
        if not content.strip() or not ids:
            raise UserError(f"tokenizer.added_tokens holds {word!r}, of which the tokenizer leaves nothing")
        if len(ids) == 1 and ids[0] != tokenizer.unk_token_id:
            known.append(word)
            continue
        new.append(AddedToken(content, single_word=True, lstrip=takes_space, normalized=True))
    extended.add_tokens(new)
    if known:
        _LOGGER.info("%d of tokenizer.added_tokens are tokens already: %s", len(known), ", ".join(known[:5]))
    return extended


def _make_word_encoder(tokenizer: PreTrainedTokenizerFast) -> Callable[[str], list[int]]:
    """Gives the ids of a word amid a text."""
    backend, space = _copy_backend(tokenizer), " " if _find_kind(tokenizer) == "BPE" else ""
    return lambda word: list(backend.encode(space + word, add_special_tokens=False).ids)


# === Pieces of a text ===


def count_words(tokenizer: PreTrainedTokenizerFast, texts: Iterable[list[str]]) -> dict[Word, int]:
    """How often each word of several tokens stands in a text; what is unknown divides a word.

    The words are the tokenizer's own. Of a long text the beginning is read.
    """
    encode = StreamTokenizer(tokenizer, with_words=True, longest_word=None)
    counts: Counter[bytes] = Counter()
    for batch in _take_characters(texts, _MOST_CHARACTERS):
        stream = encode(batch)
        assert stream.starts_word is not None
        starts = np.flatnonzero(stream.starts_word | (stream.token_ids == tokenizer.unk_token_id))
        lengths = np.diff(starts, append=len(stream.token_ids))
        several = np.flatnonzero(lengths > 1)
        counts.update(
            stream.token_ids[start : start + length].tobytes()
            for start, length in zip(starts[several].tolist(), lengths[several].tolist(), strict=True)
        )
    tokens = {token_id: token for token, token_id in tokenizer.get_vocab().items()}
    words: Counter[Word] = Counter()
    for ids, count in counts.items():
        of_word = np.frombuffer(ids, np.int32).tolist()
        word = tuple(tokens[token_id] for token_id in of_word if token_id != tokenizer.unk_token_id)
        if len(word) > 1:
            words[word] += count
    return dict(words)


def _take_characters(texts: Iterable[list[str]], most: int) -> Iterator[list[str]]:
    left = most
    for batch in texts:
        if left <= 0:
            return
        yield batch
        left -= sum(map(len, batch))


def choose_pieces(tokenizer: PreTrainedTokenizerFast, words: Mapping[Word, int], most: int) -> list[Run]:
    """The runs of tokens to make one, the best first; see `choose_runs`.

    Args:
        tokenizer: how the words were cut.
        words: from `count_words`.
        most: runs, at most; there are fewer where a text repeats no more.
    """
    join, known = _find_join(tokenizer), tokenizer.get_vocab().keys()
    if _find_kind(tokenizer) == "BPE":
        return choose_runs(words, join, most, longest=2, excluded=known)
    chosen: dict[str, Run] = {}
    excluded = set(known)
    for _ in range(_ROUNDS):
        cut = _cut_again(tokenizer, [*chosen.values()], words)
        counts: Counter[Word] = Counter()
        for word, tokens in cut.items():
            counts[tokens] += words[word]
        for run in choose_runs(counts, join, most - len(chosen), _LONGEST_RUN, excluded | chosen.keys()):
            chosen[run.piece] = run
        useless = _find_useless(_cut_again(tokenizer, [*chosen.values()], words), words, {*chosen})
        if not useless:
            break
        excluded |= useless
        chosen = {piece: run for piece, run in chosen.items() if piece not in useless}
    return list(chosen.values())


def _cut_again(
    tokenizer: PreTrainedTokenizerFast, runs: list[Run], words: Mapping[Word, int]
) -> dict[Word, Word]:
    """The words as the tokenizer with these runs cuts them."""
    described = _describe(tokenizer)
    _add_to_model(described, runs, tokenizer)
    model = Tokenizer.from_str(json.dumps(described)).model
    join = _find_join(tokenizer)
    return {word: tuple(token.value for token in model.tokenize(join(word))) for word in words}


def _find_useless(cut: Mapping[Word, Word], words: Mapping[Word, int], pieces: set[str]) -> set[str]:
    """Pieces with which all words together have no fewer tokens; a word's gain is shared by its pieces."""
    gains = dict.fromkeys(pieces, 0.0)
    for word, tokens in cut.items():
        used = pieces.intersection(tokens)
        for piece in used:
            gains[piece] += words[word] * (len(word) - len(tokens)) / len(used)
    return {piece for piece, gain in gains.items() if gain <= 0}


# === Files ===


def add_pieces(tokenizer: PreTrainedTokenizerFast, runs: list[Run]) -> PreTrainedTokenizerFast:
    """A copy with pieces in its model."""
    return _reload(tokenizer, lambda described: _add_to_model(described, runs, tokenizer))


def _reload(
    tokenizer: PreTrainedTokenizerFast, change: Callable[[dict[str, Any]], None] = lambda _: None
) -> PreTrainedTokenizerFast:
    """A copy of its own class and with its settings, whose `tokenizer.json` is changed."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save_tokenizer_folder(tokenizer, folder)
        file = folder / "tokenizer.json"
        described = json.loads(file.read_text(encoding="utf-8"))
        change(described)
        file.write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")
        for name in ("vocab.txt", "vocab.json", "merges.txt"):
            (folder / name).unlink(missing_ok=True)
        return load_tokenizer(folder)


def _add_to_model(described: dict[str, Any], runs: list[Run], tokenizer: PreTrainedTokenizerFast) -> None:
    """Adds the runs to the model of a `tokenizer.json`."""
    model = described["model"]
    # What the tokenizer has beside its model has the next ids, and no entry may take them.
    beside = sorted(described["added_tokens"], key=lambda token: token["id"])
    if model["type"] == "Unigram":
        scores = [score for _, score in model["vocab"]]
        model["vocab"] += [
            [token["content"], min(scores)] for token in beside if token["id"] >= len(model["vocab"])
        ]
        model["vocab"] += [[run.piece, _score(run.piece, tokenizer, scores)] for run in runs]
        return
    for token in beside:
        model["vocab"].setdefault(token["content"], token["id"])
    first = count_ids(tokenizer)
    model["vocab"] |= {run.piece: first + number for number, run in enumerate(runs)}
    if model["type"] == "BPE":
        model["merges"] += [list(run.tokens) for run in runs]


def _score(piece: str, tokenizer: PreTrainedTokenizerFast, scores: list[float]) -> float:
    """Of the pieces that it replaces together, and a bonus for each token less."""
    replaced = tokenizer.backend_tokenizer.model.tokenize(piece)
    return float(sum(scores[token.id] for token in replaced) + _BONUS * (len(replaced) - 1))
