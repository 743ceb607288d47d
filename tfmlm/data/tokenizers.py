"""Loads a tokenizer, or trains one on the run's own text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, BertTokenizerFast, PreTrainedTokenizerFast

from tfmlm.config import TokenizerConfig
from tfmlm.data.sources import TEXT
from tfmlm.errors import UserError

_ENTRIES_A_CHARACTER = 16
"""A trained vocabulary keeps one character for so many entries, and rarer ones are unknown: without a limit,
the characters of all the world's scripts would fill a small vocabulary."""


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerFast:
    """Loads a fast tokenizer that can mask.

    Args:
        path: a folder or a Hub id.

    Raises:
        UserError: there is no tokenizer, it is not a fast one, or it has no mask or padding token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"tokenizer.name_or_path {str(path)!r} holds no tokenizer: {reason}") from error
    return check_tokenizer(tokenizer, str(path))


def check_tokenizer(tokenizer: PreTrainedTokenizerFast, name: str) -> PreTrainedTokenizerFast:
    """Returns the tokenizer if it can serve a masked language model."""
    if not tokenizer.is_fast:
        raise UserError(f"tokenizer {name!r} has no fast version (tokenizer.json); convert it first")
    for role in ("mask_token", "pad_token"):
        if getattr(tokenizer, role) is None:
            raise UserError(
                f"tokenizer {name!r} has no {role}, which a masked language model needs; "
                "use the tokenizer of a masked language model or train one (tokenizer.train_vocab_size)"
            )
    return tokenizer


def train_tokenizer(texts: Dataset, config: TokenizerConfig) -> PreTrainedTokenizerFast:
    """Trains a lower-casing WordPiece tokenizer on the `text` column.

    The library's trainer breaks ties by a randomly seeded hash map, so that two trainings on the same text
    can differ in a few rare entries; whoever must have the same one again keeps it.
    """
    vocab_size = int(config.train_vocab_size or 0)
    unknown = "[UNK]"
    wordpiece = Tokenizer(models.WordPiece(unk_token=unknown))
    wordpiece.normalizer = normalizers.BertNormalizer(lowercase=True)
    wordpiece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    wordpiece.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=["[PAD]", unknown, "[CLS]", "[SEP]", "[MASK]"],
        limit_alphabet=vocab_size // _ENTRIES_A_CHARACTER,
        show_progress=False,
    )
    wordpiece.train_from_iterator(_iterate_texts(texts), trainer, length=len(texts))
    # BertTokenizerFast adds the template with [CLS] and [SEP] and the names of the special tokens.
    return BertTokenizerFast(tokenizer_object=wordpiece)


def _iterate_texts(texts: Dataset) -> Iterator[list[str]]:
    for batch in texts.iter(1000):
        yield batch[TEXT]
