"""A tokenizer folder from a stranger is loaded or refused in one line, and what it names is not read."""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tests.fuzzing import fuzzed
from tests.mutated_json import mutations
from tfmlm.client.local_tokenizer import load_local_tokenizer
from tfmlm.data.packing import StreamTokenizer
from tfmlm.data.tokenizers import count_ids, load_tokenizer, save_tokenizer_folder
from tfmlm.errors import UserError

TEXTS = ["Return the <mask> of the [MASK].", "", "\u4e2d \u200d \x1b", "a" * 200]
KEYS = (
    *("vocab_file", "merges_file", "tokenizer_file", "added_tokens_file", "special_tokens_map_file"),
    *("name_or_path", "auto_map", "chat_template", "tokenizer_class", "model_max_length", "mask_token"),
    *("additional_special_tokens", "extra_special_tokens", "added_tokens_decoder", "truncation", "padding"),
)
FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@pytest.fixture(scope="module")
def sound(
    tmp_path_factory: pytest.TempPathFactory,
    word_tokenizer: PreTrainedTokenizerFast,
    byte_tokenizer: PreTrainedTokenizerFast,
    piece_tokenizer: PreTrainedTokenizerFast,
) -> list[dict[str, Any]]:
    """The files of three tokenizers, as JSON."""
    folders = []
    for tokenizer in (word_tokenizer, byte_tokenizer, piece_tokenizer):
        folder = tmp_path_factory.mktemp("sound")
        tokenizer.save_pretrained(folder)
        folders.append({name: json.loads((folder / name).read_text(encoding="utf-8")) for name in FILES})
    return folders


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "tokenizer"


def write(files: dict[str, Any], folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")


def use(folder: Path) -> None:
    """What a run does with a tokenizer, as `tfmlm` ends: a panic of the library is told by the command."""
    with suppress(UserError):
        tokenizer = load_tokenizer(folder)
        count_ids(tokenizer)
        StreamTokenizer(tokenizer)(TEXTS)
        saved = folder / "saved"
        saved.mkdir()
        save_tokenizer_folder(tokenizer, saved)
        load_tokenizer(saved)
    with suppress(UserError):
        load_local_tokenizer(folder).encode(TEXTS)


@fuzzed(num_examples=40, deadline=60_000)
@given(data=st.data())
def test_any_tokenizer_folder(data: st.DataObject, sound: list[dict[str, Any]], folder: Path) -> None:
    files = dict(data.draw(st.sampled_from(sound)))
    for name in sorted(data.draw(st.sets(st.sampled_from(FILES), min_size=1))):
        files[name] = data.draw(mutations(files[name], KEYS))
    write(files, folder)
    try:
        use(folder)
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
