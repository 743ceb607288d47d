"""The model's tokenizer on the client's side, for exports that take token ids; without transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tfmlm.client.answers import Answer
from tfmlm.client.client import FilledText, FillMaskClient, check_request, check_texts
from tfmlm.errors import UserError, first_line
from tfmlm.inside import find_inside, read_json
from tfmlm.results import decode_filled, make_candidates


@dataclass(frozen=True)
class LocalTokenizer:
    """A fast tokenizer.

    Attributes:
        tokenizer: without padding and truncation.
        max_length: most tokens of a text, None if the folder does not say.
        unknown_id: of the token for what is not in the vocabulary; None if it makes none.
    """

    tokenizer: Tokenizer
    max_length: int | None
    unknown_id: int | None

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included.

        Raises:
            UserError: a text is too long for the model, or nothing to the tokenizer.
        """
        rows = self._encode(texts)
        for text, ids in zip(texts, rows, strict=True):
            if self.max_length is not None and len(ids) > self.max_length:
                raise UserError(
                    f"text {text[:40]!r} has {len(ids)} tokens and the model takes {self.max_length}; "
                    "shorten it"
                )
        return rows

    def find_target_id(self, word: str) -> int:
        """The id of a word that is one token, as the export's own signature for texts finds it.

        Raises:
            UserError: it is not.
        """
        token_id = self.tokenizer.token_to_id(word)
        if token_id is not None:
            return int(token_id)
        (ids,) = self._encode([word], add_special_tokens=False)
        if len(ids) != 1 or ids[0] == self.unknown_id:
            raise UserError(f"target {word!r} is not one token of the vocabulary; choose another word")
        return int(ids[0])

    def _encode(self, texts: list[str], add_special_tokens: bool = True) -> list[list[int]]:
        try:
            encodings = self.tokenizer.encode_batch(texts, add_special_tokens=add_special_tokens)
        except Exception as error:  # the library in Rust has no other class
            raise UserError(
                f"the tokenizer cannot take a text: {first_line(error)}; use another --tokenizer"
            ) from error
        return [list(encoding.ids) for encoding in encodings]


def fill_by_ids(
    client: FillMaskClient,
    tokenizer: LocalTokenizer,
    texts: list[str],
    top_k: int | None = None,
    targets: Sequence[str] | None = None,
) -> list[FilledText]:
    """`FillMaskClient.fill` by token ids; `sequence` is the one that `tfmlm predict` gives.

    Raises:
        UserError: a text is not Unicode or too long, a target is not one token, or the server cannot be
            reached in time or refuses.
    """
    check_texts(texts)
    check_request(top_k, targets)
    target_ids = None if targets is None else [tokenizer.find_target_id(word) for word in targets]
    rows = tokenizer.encode(texts)
    answers = client.fill_ids(rows, top_k=top_k, target_ids=target_ids)

    def describe(text: str, ids: list[int], answer: Answer) -> FilledText:
        num_masks = len(answer.positions)
        masks = make_candidates(
            answer.scores,
            answer.token_ids,
            answer.tokens,
            lambda mask, token_id, _: decode_filled(
                tokenizer.tokenizer.decode, ids, answer.positions[mask], token_id, num_masks=num_masks
            ),
        )
        return FilledText(text, masks, answer.note)

    return [describe(*row) for row in zip(texts, rows, answers, strict=True)]


def load_local_tokenizer(folder: Path) -> LocalTokenizer:
    """Loads `tokenizer.json`, and the longest text from `tokenizer_config.json` if there is one.

    Raises:
        UserError: there is none, it is damaged, or it is a link out of the folder.
    """
    whose = f"tokenizer {str(folder)!r}"
    path = find_inside(folder, "tokenizer.json", whose)
    if path is None:
        raise UserError(f"{str(folder)!r} has no tokenizer.json; give the folder of a model or a tokenizer")
    try:
        tokenizer = Tokenizer.from_file(str(path))
        unknown_id = _find_unknown_id(tokenizer, read_json(path)["model"])
    except Exception as error:
        raise UserError(f"{str(path)!r} cannot be read: {first_line(error)}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    max_length = _read_max_length(find_inside(folder, "tokenizer_config.json", whose))
    return LocalTokenizer(tokenizer, max_length, unknown_id)


def _find_unknown_id(tokenizer: Tokenizer, model: dict[str, Any]) -> int | None:
    """The model as the file has it: the library, asked for it, prints each number that a vocabulary lacks."""
    if model.get("unk_id") is not None:  # of unigram pieces
        return int(model["unk_id"])
    unknown = model.get("unk_token")
    return None if unknown is None else tokenizer.token_to_id(unknown)


def _read_max_length(path: Path | None) -> int | None:
    if path is None:
        return None
    try:
        length = read_json(path).get("model_max_length")
        return None if length is None else int(length)
    except (OSError, ValueError, AttributeError, TypeError, OverflowError) as error:
        raise UserError(f"{str(path)!r} cannot be read: {error}") from error
