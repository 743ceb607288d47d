"""A model folder with any `config.json` is loaded or refused in one line, in bounded time and memory."""

import json
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tests.fuzzing import fuzzed
from tests.mutated_json import mutations
from tests.tiny import write_hub_folder
from tfmlm.errors import UserError
from tfmlm.training.model import load_model_folder

KEYS = (
    *("auto_map", "_name_or_path", "configuration_files", "num_labels", "id2label", "num_hidden_groups"),
    *("pruned_heads", "torch_dtype", "quantization_config", "to_dict", "vocab_size", "is_decoder", "attn"),
    *("position_embedding_type", "hidden_act", "chunk_size_feed_forward", "attribute_map", "model_type"),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "model"
    write_hub_folder(folder, byte_tokenizer)
    shutil.copy(folder / "config.json", folder / "sound.json")
    return folder


@fuzzed(num_examples=25, deadline=120_000)
@given(data=st.data())
def test_any_configuration_of_a_model_folder(data: st.DataObject, model: Path) -> None:
    fields = json.loads((model / "sound.json").read_text())
    (model / "config.json").write_text(json.dumps(data.draw(mutations(fields, KEYS))))
    with suppress(UserError):
        load_model_folder(model)
