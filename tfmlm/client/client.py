"""A client of TensorFlow Serving for exports of tfmlm, over REST or gRPC.

It loads neither TensorFlow nor transformers:

    with FillMaskClient("grpc://localhost:8500/quickstart") as client:
        filled = client.fill(["Returns the [MASK] of the list."])
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tfmlm.client.address import Address, parse_address
from tfmlm.client.answers import (
    MASK_TOKENS,
    Answer,
    find_masks,
    is_ambiguous,
    put_word,
    read_answers,
    read_target_answers,
)
from tfmlm.client.options import TOKEN_VARIABLE, ClientOptions
from tfmlm.errors import UserError
from tfmlm.results import Candidate, make_candidates


@dataclass(frozen=True)
class FilledText:
    """A text with words for its masks.

    Attributes:
        text: as it was asked.
        masks: for each mask its candidates, best first.
        note: what the export had to say, such as that the text was cut; or nothing.
    """

    text: str
    masks: list[list[Candidate]]
    note: str


class Transport(Protocol):
    """A way to a served model."""

    def predict(self, signature_name: str, inputs: Mapping[str, Any], deadline: float) -> Mapping[str, Any]:
        """Asks the model.

        Args:
            signature_name: the signature.
            inputs: nested lists by name.
            deadline: of `time.monotonic`, for all attempts and waits.

        Returns:
            The outputs, nested lists by name.

        Raises:
            UserError: no attempt brought an answer.
        """

    def close(self) -> None:
        """Closes the connections."""


class FillMaskClient:
    """Asks a served model; threads may share it.

    If the environment variable `TFMLM_SERVING_TOKEN` is set, it is sent as `Authorization: Bearer …`.

    Args:
        url: `http(s)://HOST:PORT/v1/models/NAME` or `grpc(s)://HOST:PORT/NAME`, either with
            `/versions/NUMBER` or `/labels/LABEL` after it.
        options: how it is asked.

    Raises:
        UserError: the URL, the token or an option is not valid.
    """

    def __init__(self, url: str, options: ClientOptions = ClientOptions()) -> None:  # noqa: B008 - frozen
        self._options = options
        self._mask_token = options.mask_token
        self._transport = _make_transport(parse_address(url), options)

    def __enter__(self) -> FillMaskClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    def fill(
        self, texts: Sequence[str], top_k: int | None = None, targets: Sequence[str] | None = None
    ) -> list[FilledText]:
        """Fills the masks of texts; the server tokenizes.

        Args:
            texts: with masks.
            top_k: the most candidates for each mask; None gives those of the export, or all targets. The
                export has a bound, `export.max_top_k`.
            targets: the only words that may be candidates, each one token of the vocabulary; each once.

        A candidate's `sequence` is the text as it was given, with the word in place of the mask. The one of
        `tfmlm predict` is what the tokenizer makes of that: it may be lower-cased, with word pieces joined
        and spaces lost, or show special tokens. `score`, `token` and `token_str` are the same.

        Raises:
            UserError: a text is not Unicode, a target or `top_k` has no meaning, or the server cannot be
                reached in time or refuses.
        """
        check_texts(texts)
        check_request(top_k, targets)
        deadline = time.monotonic() + self._options.timeout_seconds
        filled = []
        for batch in self._cut(texts):
            answers = self._ask(batch, deadline, top_k, targets)
            if self._mask_token is None and any(map(is_ambiguous, batch)):
                self._mask_token = self._find_mask_token(deadline)
            filled += [self._describe(text, answer) for text, answer in zip(batch, answers, strict=True)]
        return filled

    def fill_ids(
        self,
        input_ids: Sequence[Sequence[int]],
        attention_mask: Sequence[Sequence[int]] | None = None,
        top_k: int | None = None,
        target_ids: Sequence[int] | None = None,
    ) -> list[Answer]:
        """Fills the masks of token ids; for exports without a text signature.

        Args:
            input_ids: a row of ids for each text, special tokens included; rows may differ in length.
            attention_mask: 1 for a token and 0 for padding, as long as `input_ids`; None is all 1.
            top_k: as of `fill`.
            target_ids: ids of the only words that may be candidates; each once.

        Raises:
            UserError: the two do not fit each other, or the server cannot be reached in time or refuses.
        """
        masks = [[1] * len(row) for row in input_ids] if attention_mask is None else attention_mask
        if [len(row) for row in masks] != [len(row) for row in input_ids]:
            raise UserError("attention_mask and input_ids differ in length; give a 1 or 0 for each id")
        check_request(top_k, target_ids)
        deadline = time.monotonic() + self._options.timeout_seconds
        answers = []
        for ids_batch, mask_batch in zip(self._cut(input_ids), self._cut(masks), strict=True):
            inputs = {"input_ids": _pad(ids_batch), "attention_mask": _pad(mask_batch)}
            signature_name = self._options.ids_signature_name
            if top_k is not None or target_ids is not None:
                signature_name = self._options.ids_options_signature_name
                inputs |= _make_request(len(ids_batch), top_k, "target_ids", target_ids, -1)
            outputs = self._transport.predict(signature_name, inputs, deadline)
            answers += _read(outputs, len(ids_batch), top_k, target_ids)
        return answers

    def _ask(
        self,
        texts: list[str],
        deadline: float,
        top_k: int | None = None,
        targets: Sequence[str] | None = None,
    ) -> list[Answer]:
        signature_name, inputs = self._options.signature_name, {"texts": texts}
        if top_k is not None or targets is not None:
            signature_name = self._options.text_options_signature_name
            inputs |= _make_request(len(texts), top_k, "targets", targets, "")
        outputs = self._transport.predict(signature_name, inputs, deadline)
        return _read(outputs, len(texts), top_k, targets)

    def _find_mask_token(self, deadline: float) -> str | None:
        """The model's own of the known ones, which a text with one of each does not tell; asks the model."""
        answers = self._ask(list(MASK_TOKENS), deadline)
        found = [token for token, answer in zip(MASK_TOKENS, answers, strict=True) if answer.positions]
        return found[0] if len(found) == 1 else None

    def _cut(self, rows: Sequence[Any]) -> list[list[Any]]:
        size = self._options.texts_per_request
        return [list(rows[start : start + size]) for start in range(0, len(rows), size)]

    def _describe(self, text: str, answer: Answer) -> FilledText:
        spans = find_masks(text, len(answer.positions), self._mask_token)
        masks = make_candidates(
            answer.scores,
            answer.token_ids,
            answer.tokens,
            lambda mask, _, token: put_word(text, spans[mask], token),
        )
        return FilledText(text, masks, answer.note)


def _make_transport(address: Address, options: ClientOptions) -> Transport:
    """Only the library that is needed is loaded."""
    token = os.environ.get(TOKEN_VARIABLE)
    if token is not None and not (token.isascii() and token.isprintable() and token.split() == [token]):
        raise UserError(
            f"{TOKEN_VARIABLE} is empty or has spaces or other odd characters in it; set it again"
        )
    if address.is_rest:
        from tfmlm.client.rest import RestTransport

        return RestTransport(address, options, token)
    from tfmlm.client.grpc import GrpcTransport

    return GrpcTransport(address, options, token)


def check_texts(texts: Sequence[str]) -> None:
    """Refuses what is no list of texts.

    Raises:
        UserError: it is a string, or holds one that no message can carry.
    """
    if isinstance(texts, str):
        raise UserError("the texts are a single string; give a list of strings")
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UserError(f"text {text!r} has bytes that are not UTF-8; convert it") from None


def check_request(top_k: int | None, targets: Sequence[object] | None) -> None:
    """Refuses what no server can answer.

    Raises:
        UserError: there is no candidate to give, or a target is none.
    """
    if top_k is not None and top_k < 1:
        raise UserError(f"top_k is {top_k}; it must be 1 or more")
    if targets is None:
        return
    if isinstance(targets, str):
        raise UserError("the targets are a single string; give a list of strings")
    if not targets or any(target == "" for target in targets):
        raise UserError(f"targets are {[*targets]}; give words, none of them empty")
    check_texts([target for target in targets if isinstance(target, str)])


def _make_request(
    num_rows: int, top_k: int | None, name: str, targets: Sequence[Any] | None, none: Any
) -> dict[str, Any]:
    """The inputs by which each of N rows asks for the same; a server takes no list without values."""
    if targets is not None:
        return {"top_k": [0] * num_rows, name: [[*targets]] * num_rows}
    return {"top_k": [top_k] * num_rows, name: [[none]] * num_rows}


def _read(
    outputs: Mapping[str, Any], num_rows: int, top_k: int | None, targets: Sequence[Any] | None
) -> list[Answer]:
    if targets is None:
        return read_answers(outputs, num_rows)
    return read_target_answers(outputs, num_rows, len(targets), top_k)


def _pad(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Rows of one length; where the attention mask is 0 the ids do not count."""
    length = max(len(row) for row in rows)
    return [[*row, *[0] * (length - len(row))] for row in rows]
