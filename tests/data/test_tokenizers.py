"""A trained tokenizer is an ordinary one, and one that cannot serve is refused with a line that says why."""

import json
import shutil
import subprocess
import sys
from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import Model, Unigram, WordLevel, WordPiece
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertJapaneseTokenizer,
    CanineTokenizer,
    PreTrainedTokenizerFast,
)

from tests.folders import CHECKOUT
from tests.tiny import SENTENCES
from tfmlm.client.local_tokenizer import load_local_tokenizer
from tfmlm.config import TokenizerConfig
from tfmlm.data.tokenizer_training import train_tokenizer
from tfmlm.data.tokenizers import check_tokenizer, load_tokenizer, save_tokenizer_folder
from tfmlm.errors import UserError

VARIED = [doc for value in vars(str).values() if isinstance(doc := value.__doc__, str)]
SAMPLES = [*SENTENCES[:5], *VARIED[:5], "", "Unseen \u4e2d\u6587 w\u00f6rds", "[SEP] spelled", "a\n\n  b"]


def train(texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    return train_tokenizer([texts], TokenizerConfig(train_vocab_size=vocab_size))


@pytest.fixture(scope="module")
def trained() -> PreTrainedTokenizerFast:
    """Large enough to know every letter."""
    return train(VARIED + SENTENCES, 2000)


# === Training ===


@pytest.mark.parametrize("vocab_size", [150, 300])
def test_a_trained_tokenizer_has_the_asked_size(vocab_size: int) -> None:
    tokenizer = train(VARIED, vocab_size)
    assert len(tokenizer) == tokenizer.vocab_size == vocab_size
    assert sorted(tokenizer.get_vocab().values()) == list(range(vocab_size))


def test_a_trained_tokenizer_names_its_special_tokens(word_tokenizer: PreTrainedTokenizerFast) -> None:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert word_tokenizer.convert_ids_to_tokens(range(5)) == special
    roles = ["pad_token_id", "unk_token_id", "cls_token_id", "sep_token_id", "mask_token_id"]
    assert [getattr(word_tokenizer, role) for role in roles] == [0, 1, 2, 3, 4]


def test_a_trained_tokenizer_puts_special_tokens_at_the_borders(trained: PreTrainedTokenizerFast) -> None:
    tokens = trained.convert_ids_to_tokens(trained("Return the name")["input_ids"])
    assert tokens == ["[CLS]", "return", "the", "name", "[SEP]"]
    pair = trained("the", "name")
    assert trained.convert_ids_to_tokens(pair["input_ids"]) == ["[CLS]", "the", "[SEP]", "name", "[SEP]"]
    assert pair["token_type_ids"] == [0, 0, 0, 1, 1]


def test_a_trained_tokenizer_knows_its_five_special_tokens_in_a_text_and_no_others(
    trained: PreTrainedTokenizerFast,
) -> None:
    assert trained.tokenize("Return the [MASK].") == ["return", "the", "[MASK]", "."]
    # A continuing letter is an entry of the vocabulary, but not a word to look for in a text.
    assert "##e" in trained.get_vocab()
    assert "##e" not in trained.tokenize("a ##e b")
    assert len(trained.added_tokens_decoder) == 5


def test_a_trained_tokenizer_leaves_no_letter_of_its_text_unknown(trained: PreTrainedTokenizerFast) -> None:
    assert not [text for text in VARIED + SENTENCES if trained.unk_token_id in trained(text)["input_ids"]]


def test_a_trained_tokenizer_decodes_to_lower_case_words(trained: PreTrainedTokenizerFast) -> None:
    token_ids = trained("Return the LONGEST name")["input_ids"]
    assert trained.decode(token_ids, skip_special_tokens=True) == "return the longest name"


def test_a_trained_tokenizer_loads_with_equal_encodings(
    trained: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    trained.save_pretrained(tmp_path)
    for loaded in (AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(tmp_path)):
        assert type(loaded) is type(trained)
        assert loaded.special_tokens_map == trained.special_tokens_map
        assert [loaded(text) for text in SAMPLES] == [trained(text) for text in SAMPLES]
        assert [loaded.decode(loaded(text)["input_ids"]) for text in SAMPLES] == [
            trained.decode(trained(text)["input_ids"]) for text in SAMPLES
        ]


def test_the_same_texts_give_the_same_file(tmp_path: Path) -> None:
    files = []
    for number in range(4):
        train(VARIED + SENTENCES, 500).save_pretrained(tmp_path / str(number))
        files.append((tmp_path / str(number) / "tokenizer.json").read_bytes())
    assert len(set(files)) == 1


def test_another_process_gives_the_same_file() -> None:
    """Hash seeds, of Python and of the Rust library, differ from process to process."""
    script = (
        "from tests.data.test_tokenizers import VARIED, train\n"
        "import sys\n"
        "sys.stdout.write(train(VARIED, 300).backend_tokenizer.to_str())\n"
    )
    other = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=CHECKOUT,
        capture_output=True,
        check=True,
        encoding="utf-8",
    )
    assert other.stdout == train(VARIED, 300).backend_tokenizer.to_str()


# === Refusals ===


def make_tokenizer(**special_tokens: str) -> PreTrainedTokenizerFast:
    backend = Tokenizer(WordLevel({"[UNK]": 0, "[PAD]": 1, "[MASK]": 2}, unk_token="[UNK]"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", **special_tokens)


def assert_refused(folder: Path, *reasons: str) -> None:
    with pytest.raises(UserError) as refusal:
        load_tokenizer(folder)
    message = str(refusal.value)
    assert "\n" not in message
    assert str(folder) in message
    for reason in reasons:
        assert reason in message


def test_a_tokenizer_with_mask_and_padding_is_accepted(tmp_path: Path) -> None:
    make_tokenizer(mask_token="[MASK]", pad_token="[PAD]").save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).mask_token_id == 2


def test_a_tokenizer_without_mask_token_is_refused(tmp_path: Path) -> None:
    make_tokenizer(pad_token="[PAD]").save_pretrained(tmp_path)
    assert_refused(tmp_path, "no mask_token", "tokenizer.train_vocab_size")


def test_a_tokenizer_without_padding_token_is_refused(tmp_path: Path) -> None:
    make_tokenizer(mask_token="[MASK]").save_pretrained(tmp_path)
    assert_refused(tmp_path, "no pad_token")


@pytest.mark.parametrize(
    "model",
    [
        WordLevel({"[PAD]": 0, "[MASK]": 1, "a": 2}, unk_token="[UNK]"),
        WordPiece({"[PAD]": 0, "[MASK]": 1, "a": 2}, unk_token="[UNK]"),
        Unigram([("[PAD]", 0.0), ("[MASK]", 0.0), ("a", -1.0)]),
    ],
)
def test_a_vocabulary_without_its_token_for_what_is_unknown_is_refused(model: Model, tmp_path: Path) -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(model), mask_token="[MASK]", pad_token="[PAD]"
    )
    tokenizer.save_pretrained(tmp_path)
    assert_refused(tmp_path, "cannot take a text")
    with pytest.raises(UserError, match="cannot take a text"):
        load_local_tokenizer(tmp_path).encode(["b"])


def test_a_tokenizer_without_fast_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\n[PAD]\n[MASK]\n")
    BertJapaneseTokenizer(tmp_path / "vocab.txt").save_pretrained(tmp_path)
    assert_refused(tmp_path, "no fast version")


def test_a_tokenizer_without_vocabulary_is_refused(tmp_path: Path) -> None:
    CanineTokenizer().save_pretrained(tmp_path)
    assert_refused(tmp_path, "neither tokenizer.json nor another vocabulary")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path, "holds no tokenizer")


def test_a_model_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    BertConfig(vocab_size=10).save_pretrained(tmp_path)
    assert_refused(tmp_path, "holds no tokenizer")


@pytest.mark.parametrize("broken", ["tokenizer.json", "tokenizer_config.json"])
def test_a_broken_file_is_refused(broken: str, tmp_path: Path) -> None:
    make_tokenizer(mask_token="[MASK]", pad_token="[PAD]").save_pretrained(tmp_path)
    (tmp_path / broken).write_text("{ not json")
    assert_refused(tmp_path, "holds no tokenizer")


def test_a_tokenizer_that_needs_its_own_code_is_refused_and_the_code_not_run(tmp_path: Path) -> None:
    make_tokenizer(mask_token="[MASK]", pad_token="[PAD]").save_pretrained(tmp_path)
    auto_map = {"AutoTokenizer": [None, "own.OwnTokenizer"]}
    own = {"tokenizer_class": "OwnTokenizer", "auto_map": auto_map}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(own))
    (tmp_path / "own.py").write_text("raise SystemExit('this code must not run')\n")
    assert_refused(tmp_path, "needs code of its own (auto_map), which is never run")


def test_a_name_that_the_hub_cannot_give_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"^tokenizer.name_or_path 'nobody/no-tokenizer' holds no tokenizer: .+$"
    ):
        load_tokenizer("nobody/no-tokenizer")


# === A folder from a stranger ===

VICTIM = "secretone\nsecrettwo\nsecretthree\n"
PATH_KEYS = [
    *("vocab_file", "merges_file", "tokenizer_file", "spm_file", "sp_model_file", "source_spm"),
    *("monolingual_vocab_file", "language_codes_file", "word_shape_file", "chat_template_file"),
]
CLASSES = [f"{name}TokenizerFast" for name in ("Albert", "Bert", "Camembert", "Roberta", "XLMRoberta")]


def assert_nothing_is_stolen(folder: Path, saved: Path) -> None:
    """The tokenizer is refused, or what is saved of it holds not one of the victim's lines."""
    shutil.rmtree(saved, ignore_errors=True)
    saved.mkdir()
    with suppress(UserError):
        save_tokenizer_folder(load_tokenizer(folder), saved)
    for file in saved.iterdir():
        assert "secret" not in file.read_text(encoding="utf-8"), file.name


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim.txt"
    path.write_text(VICTIM)
    return path


@pytest.mark.parametrize("has_tokenizer_json", [True, False])
@pytest.mark.parametrize("class_name", CLASSES)
def test_metadata_that_names_a_file_does_not_open_it(
    class_name: str, has_tokenizer_json: bool, victim: Path, tmp_path: Path, trained: PreTrainedTokenizerFast
) -> None:
    folder = tmp_path / "stranger"
    trained.save_pretrained(folder)
    if not has_tokenizer_json:
        (folder / "tokenizer.json").unlink()
    (tmp_path / "tokenizer.1.0.0.json").write_text(VICTIM)
    named = [{key: str(victim)} for key in PATH_KEYS]
    named += [{"init_inputs": [str(victim)]}, {"fast_tokenizer_files": ["../tokenizer.1.0.0.json"]}]
    for stolen, file_name in product(named, ["tokenizer_config.json", "special_tokens_map.json"]):
        own = {
            "tokenizer_config.json": {"tokenizer_class": class_name} | trained.special_tokens_map,
            "special_tokens_map.json": dict(trained.special_tokens_map),
        }
        own[file_name] |= stolen
        for name, metadata in own.items():
            (folder / name).write_text(json.dumps(metadata))
        assert_nothing_is_stolen(folder, tmp_path / "saved")


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer_config.json", "special_tokens_map.json"])
def test_a_link_out_of_the_folder_is_refused(
    name: str, victim: Path, tmp_path: Path, trained: PreTrainedTokenizerFast
) -> None:
    folder = tmp_path / "stranger"
    trained.save_pretrained(folder)
    (folder / "tokenizer.json").unlink()
    (folder / name).unlink()
    (folder / name).symlink_to(victim)
    assert_refused(folder, f"{name} is a link out of its folder")


def test_a_link_inside_the_folder_and_one_of_the_hubs_cache_are_followed(
    tmp_path: Path, trained: PreTrainedTokenizerFast
) -> None:
    snapshot = tmp_path / "models--me--mine" / "snapshots" / "0"
    trained.save_pretrained(snapshot)
    (tmp_path / "models--me--mine" / "blobs").mkdir()
    (snapshot / "tokenizer.json").rename(tmp_path / "models--me--mine" / "blobs" / "a")
    (snapshot / "tokenizer.json").symlink_to("../../blobs/a")
    (snapshot / "tokenizer_config.json").rename(snapshot / "other.json")
    (snapshot / "tokenizer_config.json").symlink_to("other.json")
    assert load_tokenizer(snapshot).get_vocab() == trained.get_vocab()


def test_what_is_left_out_is_named_and_what_is_known_kept(
    tmp_path: Path, trained: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    trained.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": 77, "vocab_file": "x"}))
    assert load_tokenizer(tmp_path).model_max_length == 77
    assert caplog.messages == [f"tokenizer {tmp_path}: tokenizer_config.json leaves out 'vocab_file'"]


def test_check_returns_the_tokenizer_itself(word_tokenizer: PreTrainedTokenizerFast) -> None:
    assert check_tokenizer(word_tokenizer, "mine") is word_tokenizer


def test_a_number_far_beyond_a_vocabulary_is_refused_at_once(tmp_path: Path) -> None:
    make_tokenizer(mask_token="[MASK]", pad_token="[PAD]").save_pretrained(tmp_path)
    file = tmp_path / "tokenizer.json"
    described = json.loads(file.read_text())
    described["model"]["vocab"]["far"] = 1_446_563_990
    file.write_text(json.dumps(described))
    assert_refused(tmp_path, "1,446,563,990, and no vocabulary is that large")
    assert load_local_tokenizer(tmp_path).unknown_id == 0  # the client has no table of ids
