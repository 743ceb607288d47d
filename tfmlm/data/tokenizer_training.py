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
from tfmlm.data.tokenizers import PADS_AT_ONE
from tfmlm.errors import UserError

Batches = Iterable[list[str]]

_CHARACTER_COVERAGE = 0.9995
"""Share of the text whose characters a WordPiece vocabulary keeps, as SentencePiece does by default; the
rarest are unknown, since the characters of all the world's scripts would fill a small vocabulary."""

_MOST_FOR_CHARACTERS = 0.5
"""Share of a vocabulary that single characters may take."""

_SENTENCEPIECE_CONTROLS = 3
"""<unk>, <s> and </s>, which SentencePiece puts first."""

_BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_BERT_SPECIAL_PADDING_AT_ONE = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"]
_ROBERTA_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
"""In this order, because RoBERTa's family takes token 1 for padding."""


def train_tokenizer(
    texts: Batches, config: TokenizerConfig, model_type: str = "bert"
) -> PreTrainedTokenizerFast:
    """Trains a tokenizer.

    Args:
        texts: the training texts in batches; they are read once or twice.
        config: the algorithm and the size of the vocabulary, at most.
        model_type: what it is for: a type in `PADS_AT_ONE` has padding at 1 whatever the algorithm.

    Returns:
        A fast tokenizer that `AutoTokenizer` loads after `save_pretrained`: BERT's (lower-casing) for
        `wordpiece`, RoBERTa's for `byte_bpe`, XLM-RoBERTa's for `unigram`.
    """
    vocab_size = int(config.train_vocab_size or 0)
    if config.algorithm == "wordpiece":
        pads_at_one = model_type in PADS_AT_ONE
        return _train_wordpiece(
            texts, vocab_size, _BERT_SPECIAL_PADDING_AT_ONE if pads_at_one else _BERT_SPECIAL
        )
    return (_train_byte_bpe if config.algorithm == "byte_bpe" else _train_unigram)(texts, vocab_size)


def _train_wordpiece(texts: Batches, vocab_size: int, special: list[str]) -> PreTrainedTokenizerFast:
    normalizer = normalizers.BertNormalizer(lowercase=True)
    pre_tokenizer = pre_tokenizers.BertPreTokenizer()

    def can_continue(letter: str) -> bool:
        """True for what can follow a letter in a word; punctuation and Chinese characters stand alone."""
        return len(pre_tokenizer.pre_tokenize_str(normalizer.normalize_str("a" + letter))) == 1

    counts = _count_characters(texts, normalizer)
    most_entries = min(int(_MOST_FOR_CHARACTERS * vocab_size), vocab_size - len(special))
    alphabet = _choose_alphabet(counts, can_continue, most_entries)
    continuing = [letter for letter in alphabet if can_continue(letter)]

    def make(vocabulary: dict[str, int]) -> Tokenizer:
        wordpiece = Tokenizer(models.WordPiece(vocabulary, unk_token=_BERT_SPECIAL[1]))
        wordpiece.normalizer = normalizer
        wordpiece.pre_tokenizer = pre_tokenizer
        wordpiece.decoder = decoders.WordPiece()
        return wordpiece

    trained = make({})
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        # Given as special tokens, the continuing letters have fixed numbers, and so has all that follows.
        special_tokens=[*special, *(f"##{letter}" for letter in continuing)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    # From the vocabulary alone: the continuing letters must not be special tokens.
    vocabulary = trained.get_vocab()
    wordpiece = make(vocabulary)
    wordpiece.add_special_tokens(special)
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
    try:
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
    except RuntimeError as error:
        if "required_chars" not in str(error):
            raise
        raise UserError(
            f"tokenizer.train_vocab_size is {num_pieces + len(_ROBERTA_SPECIAL)}, and the text has more "
            "characters than that; raise it, or use tokenizer.algorithm=byte_bpe"
        ) from error
    trained = SentencePieceProcessor(model_proto=model.getvalue())
    numbers = range(_SENTENCEPIECE_CONTROLS, trained.get_piece_size())
    return [(trained.id_to_piece(number), trained.get_score(number)) for number in numbers]


def _make_template(first: str, last: str, vocabulary: dict[str, int]) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B:1 {last}:1",
        special_tokens=[(token, vocabulary[token]) for token in (first, last)],
    )


def _count_characters(texts: Batches, normalizer: normalizers.Normalizer) -> Counter[str]:
    """How often each character stands in the normalized text; white space belongs to no token."""
    counts: Counter[str] = Counter()
    for batch in texts:
        counts.update("".join(normalizer.normalize_str("".join(batch)).split()))
    return counts


def _choose_alphabet(
    counts: Counter[str], can_continue: Callable[[str], bool], most_entries: int
) -> list[str]:
    """The characters of a vocabulary, sorted: all of ASCII, and the others that coverage asks for.

    Args:
        counts: characters of the text.
        can_continue: whether a character can continue a word, and so takes a second entry.
        most_entries: of the vocabulary for characters; ASCII's come first, the more frequent before others.
    """
    alphabet: list[str] = []
    num_entries, num_covered, num_characters = 0, 0, counts.total()
    for letter in sorted(counts, key=lambda letter: (not letter.isascii(), -counts[letter], letter)):
        if not letter.isascii() and num_covered >= _CHARACTER_COVERAGE * num_characters:
            break
        num_entries += 1 + can_continue(letter)
        if num_entries > most_entries:
            break
        num_covered += counts[letter]
        alphabet.append(letter)
    return sorted(alphabet)
