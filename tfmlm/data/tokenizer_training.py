"""Trains a tokenizer on the run's own text; the same text gives the same tokenizer.

The trainers of the tokenizers library number some entries in the order of a randomly seeded hash map and
break ties by number, so each function here fixes the numbers first.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    BertTokenizerFast,
    PreTrainedTokenizerFast,
    RobertaTokenizerFast,
    XLMRobertaTokenizerFast,
)

from tfmlm.config import TokenizerConfig

Batches = Iterable[list[str]]

_ENTRIES_A_CHARACTER = 16
"""A trained vocabulary keeps one character for so many entries, and rarer ones are unknown: without a limit,
the characters of all the world's scripts would fill a small vocabulary."""

_SENTENCEPIECE_CONTROLS = 3
"""<unk>, <s> and </s>, which SentencePiece puts first."""

_BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_ROBERTA_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
"""In this order, because RoBERTa's family counts positions from `pad_token_id` + 1 = 2."""


def train_tokenizer(texts: Batches, config: TokenizerConfig) -> PreTrainedTokenizerFast:
    """Trains a tokenizer.

    Args:
        texts: the training texts in batches; they are read once or twice.
        config: the algorithm and the size of the vocabulary, at most.

    Returns:
        A fast tokenizer that `AutoTokenizer` loads after `save_pretrained`: BERT's (lower-casing) for
        `wordpiece`, RoBERTa's for `byte_bpe`, XLM-RoBERTa's for `unigram`.
    """
    return _TRAINERS[config.algorithm](texts, int(config.train_vocab_size or 0))


def _train_wordpiece(texts: Batches, vocab_size: int) -> PreTrainedTokenizerFast:
    normalizer = normalizers.BertNormalizer(lowercase=True)
    alphabet = _count_alphabet(texts, normalizer, vocab_size // _ENTRIES_A_CHARACTER)

    def make(vocabulary: dict[str, int]) -> Tokenizer:
        wordpiece = Tokenizer(models.WordPiece(vocabulary, unk_token=_BERT_SPECIAL[1]))
        wordpiece.normalizer = normalizer
        wordpiece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        wordpiece.decoder = decoders.WordPiece()
        return wordpiece

    trained = make({})
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        # Given as special tokens, the continuing letters have fixed numbers, and so has all that follows.
        special_tokens=[*_BERT_SPECIAL, *(f"##{letter}" for letter in alphabet)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    # From the vocabulary alone: the continuing letters must not be special tokens.
    vocabulary = trained.get_vocab()
    wordpiece = make(vocabulary)
    wordpiece.add_special_tokens(_BERT_SPECIAL)
    wordpiece.post_processor = _make_template("[CLS]", "[SEP]", vocabulary)
    return BertTokenizerFast(tokenizer_object=wordpiece)


def _train_byte_bpe(texts: Batches, vocab_size: int) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=_ROBERTA_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    ids = bpe.get_vocab()
    bpe.post_processor = processors.RobertaProcessing(
        sep=("</s>", ids["</s>"]), cls=("<s>", ids["<s>"]), add_prefix_space=False
    )
    return RobertaTokenizerFast(tokenizer_object=bpe)


def _train_unigram(texts: Batches, vocab_size: int) -> PreTrainedTokenizerFast:
    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
    pieces = [(token, 0.0) for token in _ROBERTA_SPECIAL]
    pieces += _train_sentencepiece(texts, normalizer, vocab_size - len(pieces))
    unigram = Tokenizer(models.Unigram(pieces, unk_id=_ROBERTA_SPECIAL.index("<unk>")))
    unigram.normalizer = normalizer
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.decoder = decoders.Metaspace()
    # The mask takes the space before it with it, as in XLM-RoBERTa's own tokenizer.
    mask = AddedToken("<mask>", lstrip=True, special=True)
    unigram.add_special_tokens([*_ROBERTA_SPECIAL[:4], mask])
    unigram.post_processor = _make_template("<s>", "</s>", unigram.get_vocab())
    return XLMRobertaTokenizerFast(tokenizer_object=unigram, mask_token=mask)


def _train_sentencepiece(
    texts: Batches, normalizer: normalizers.Normalizer, num_pieces: int
) -> list[tuple[str, float]]:
    """Pieces and their log probabilities; the tokenizers library's own trainer is not repeatable here.

    Its sums run in the order of a hash map: scores differ in the fourth digit, and with them the order.
    """
    lines = (
        normalizer.normalize_str(line) for batch in texts for text in batch for line in text.splitlines()
    )
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=lines,
        model_writer=model,
        model_type="unigram",
        vocab_size=num_pieces + _SENTENCEPIECE_CONTROLS,
        hard_vocab_limit=False,  # a small text may not hold so many pieces
        normalization_rule_name="identity",
        max_sentence_length=2**16,
        num_threads=1,  # sums over threads would depend on their number
        minloglevel=2,
    )
    trained = SentencePieceProcessor(model_proto=model.getvalue())
    numbers = range(_SENTENCEPIECE_CONTROLS, trained.get_piece_size())
    return [(trained.id_to_piece(number), trained.get_score(number)) for number in numbers]


_TRAINERS: dict[str, Callable[[Batches, int], PreTrainedTokenizerFast]] = {
    "byte_bpe": _train_byte_bpe,
    "unigram": _train_unigram,
    "wordpiece": _train_wordpiece,
}


def _make_template(first: str, last: str, vocabulary: dict[str, int]) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B:1 {last}:1",
        special_tokens=[(token, vocabulary[token]) for token in (first, last)],
    )


def _count_alphabet(texts: Batches, normalizer: normalizers.Normalizer, size: int) -> list[str]:
    """The most frequent characters after normalization, sorted."""
    counts: Counter[str] = Counter()
    for batch in texts:
        counts.update("".join(normalizer.normalize_str("".join(batch)).split()))
    return sorted(sorted(counts, key=lambda letter: (-counts[letter], letter))[:size])
