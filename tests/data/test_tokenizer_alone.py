"""A `tokenizer.json` alone loads as the whole folder does, if its special tokens can be told."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tests.tiny import SENTENCES
from tfmlm.config import TokenizerConfig
from tfmlm.data.tokenizer_training import train_tokenizer
from tfmlm.data.tokenizers import load_tokenizer, save_tokenizer_folder, tell_special_tokens
from tfmlm.errors import UserError

ROLES = ["mask_token", "pad_token", "unk_token", "cls_token", "sep_token"]


@pytest.fixture(scope="module", params=["wordpiece", "byte_bpe", "unigram"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    settings = TokenizerConfig(train_vocab_size=300, algorithm=request.param)
    save_tokenizer_folder(train_tokenizer([SENTENCES], settings, "roberta"), folder)
    return folder


def leave_alone(whole: Path, folder: Path, **fields: Any) -> Path:
    folder.mkdir(exist_ok=True)
    content = json.loads((whole / "tokenizer.json").read_text()) | fields
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


def assert_same(first: PreTrainedTokenizerFast, second: PreTrainedTokenizerFast) -> None:
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()
    for role in ROLES:
        assert getattr(first, role) == getattr(second, role), role
        assert getattr(first, f"{role}_id") == getattr(second, f"{role}_id"), role
    texts = [*SENTENCES[:5], f"a {first.mask_token}.", "", "Unseen \u4e2d"]
    assert first(texts)["input_ids"] == second(texts)["input_ids"]


def test_alone_it_is_the_same_tokenizer_and_is_saved_whole(whole: Path, tmp_path: Path) -> None:
    alone = load_tokenizer(leave_alone(whole, tmp_path / "alone"))
    assert_same(alone, load_tokenizer(whole))
    save_tokenizer_folder(alone, tmp_path / "again")
    assert_same(load_tokenizer(tmp_path / "again"), alone)


def test_the_usual_names_are_enough_without_a_post_processor(whole: Path, tmp_path: Path) -> None:
    expected = load_tokenizer(whole)
    alone = load_tokenizer(leave_alone(whole, tmp_path / "alone", post_processor=None))
    assert [getattr(alone, role) for role in ROLES] == [getattr(expected, role) for role in ROLES]


def test_beside_a_models_configuration_it_need_not_know_the_class(whole: Path, tmp_path: Path) -> None:
    """The class of ModernBERT's tokenizer names no special tokens itself; BERT's and RoBERTa's do."""
    own = "bert" if "wordpiece" in whole.name else "roberta"
    expected = load_tokenizer(whole)
    for model_type in (own, "modernbert"):
        folder = leave_alone(whole, tmp_path / model_type)
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
        loaded = load_tokenizer(folder)
        assert [getattr(loaded, role) for role in ROLES] == [getattr(expected, role) for role in ROLES]
        assert len(loaded) == len(expected)


def rename_special(whole: Path, names: dict[str, str]) -> dict[str, Any]:
    fields = json.loads((whole / "tokenizer.json").read_text())
    for token in fields["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    return fields


def test_tokens_that_cannot_be_told_are_named_with_the_file_that_tells(whole: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(whole)
    mask, pad = tokenizer.mask_token, tokenizer.pad_token
    assert mask
    assert pad
    others = rename_special(whole, {mask: "<special1>", pad: "<special2>"})
    ambiguous = rename_special(whole, {})
    other_mask = "<mask>" if mask == "[MASK]" else "[MASK]"
    ambiguous["added_tokens"].append(ambiguous["added_tokens"][0] | {"content": other_mask, "id": 10**4})
    for number, (fields, missing) in enumerate(
        [(others, "mask token and pad token"), (ambiguous, "mask token")]
    ):
        folder = leave_alone(whole, tmp_path / str(number), **fields)
        with pytest.raises(
            UserError, match=rf"does not tell its {missing}; put its tokenizer_config\.json or"
        ):
            load_tokenizer(folder)


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"added_tokens": 3}', '{"added_tokens": [3], "model": {}}', "{"]
)
def test_what_is_no_tokenizer_file(content: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)


def test_the_files_that_are_missing_are_named(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"it has neither tokenizer\.json nor another vocabulary"):
        load_tokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n")
    with pytest.raises(UserError, match=r"neither tokenizer_config\.json nor config\.json"):
        load_tokenizer(tmp_path)
    shutil.copy(whole / "tokenizer.json", tmp_path)
    assert load_tokenizer(tmp_path).mask_token


@pytest.mark.parametrize("kind", ["BertProcessing", "RobertaProcessing"])
def test_the_first_and_last_token_stand_in_the_post_processor(kind: str) -> None:
    special = [{"content": token, "special": True} for token in ("<a>", "<b>", "[CLS]", "[SEP]")]
    processor = {"type": kind, "cls": ["<a>", 0], "sep": ["<b>", 1]}
    fields = {"added_tokens": special, "model": {}, "post_processor": processor}
    assert tell_special_tokens(fields) == {"cls_token": "<a>", "sep_token": "<b>"}
    fields["post_processor"] = {"type": "Sequence", "processors": [{"type": "ByteLevel"}, processor]}
    assert tell_special_tokens(fields) == {"cls_token": "<a>", "sep_token": "<b>"}
