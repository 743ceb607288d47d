"""Loads a tokenizer, or trains one on the run's own text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, BertTokenizerFast, PreTrainedTokenizerFast

from tfmlm.config import TokenizerConfig
from tfmlm.data.sources import TEXT
from tfmlm.errors import UserError

_UNKNOWN = "[UNK]"
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
    except Exception as error:
        reason = (str(error).splitlines() or ["it cannot be read"])[0]
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
    """Trains a lower-casing WordPiece tokenizer on the `text` column; the same texts give the same one."""
    vocab_size = int(config.train_vocab_size or 0)
    special = ["[PAD]", _UNKNOWN, "[CLS]", "[SEP]", "[MASK]"]
    alphabet = _count_alphabet(texts, vocab_size // _ENTRIES_A_CHARACTER)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        # The trainer numbers the continuing letters in the order of a randomly seeded hash map, and breaks
        # ties between merges by number. Given first, they have fixed numbers, and so has all that follows.
        special_tokens=[*special, *(f"##{letter}" for letter in alphabet)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    trained = _make_wordpiece({})
    trained.train_from_iterator(_iterate_texts(texts), trainer, length=len(texts))
    # From the vocabulary alone: the continuing letters must not be special tokens.
    vocabulary = trained.get_vocab()
    wordpiece = _make_wordpiece(vocabulary)
    wordpiece.add_special_tokens(special)
    wordpiece.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return BertTokenizerFast(tokenizer_object=wordpiece)


def _make_wordpiece(vocabulary: dict[str, int]) -> Tokenizer:
    wordpiece = Tokenizer(models.WordPiece(vocabulary, unk_token=_UNKNOWN))
    wordpiece.normalizer = normalizers.BertNormalizer(lowercase=True)
    wordpiece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    wordpiece.decoder = decoders.WordPiece()
    return wordpiece


def _count_alphabet(texts: Dataset, size: int) -> list[str]:
    """The most frequent characters after normalization, sorted."""
    normalizer = normalizers.BertNormalizer(lowercase=True)
    counts: Counter[str] = Counter()
    for batch in _iterate_texts(texts):
        counts.update("".join(normalizer.normalize_str("".join(batch)).split()))
    return sorted(sorted(counts, key=lambda letter: (-counts[letter], letter))[:size])


def _iterate_texts(texts: Dataset) -> Iterator[list[str]]:
    for batch in texts.iter(1000):
        yield batch[TEXT]
