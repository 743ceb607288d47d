"""A model that this machine cannot hold is refused at once, whichever field asks for it."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, PreTrainedTokenizerFast

from tests.memory import forget_peak, read_peak
from tests.tiny import ALL_TINY_CONFIGS, make_tiny, write_hub_folder
from tfmlm.errors import UserError
from tfmlm.training.model import load_model_folder
from tfmlm.training.sizes import check_size, estimate_parameters, measure_memory

FIELDS = ["num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size", "max_position_embeddings"]
FIELDS += ["type_vocab_size", "num_labels", "num_hidden_groups"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = tmp_path_factory.mktemp("sizes") / "model"
    write_hub_folder(folder, byte_tokenizer)
    (folder / "config.json").rename(folder / "sound.json")
    return folder


@pytest.mark.parametrize("field", FIELDS)
@settings(deadline=None, max_examples=5)
@given(size=st.sampled_from([10**10, 10**12, 10**18, 10**400]))
def test_a_size_beyond_memory_is_refused_before_it_is_taken(field: str, size: int, model: Path) -> None:
    fields = json.loads((model / "sound.json").read_text())
    (model / "config.json").write_text(json.dumps(fields | {field: size}))
    forget_peak()
    start, before = time.monotonic(), read_peak()
    with pytest.raises(UserError, match=rf"model\.config\.{field} is .+"):
        load_model_folder(model)
    assert time.monotonic() - start < 5
    assert read_peak() - before < 500_000


def test_ten_million_layers_are_refused(model: Path) -> None:
    fields = json.loads((model / "sound.json").read_text())
    (model / "config.json").write_text(json.dumps(fields | {"num_hidden_layers": 10**7}))
    with pytest.raises(UserError, match="num_hidden_layers is 10,000,000; it must be at most 1000"):
        load_model_folder(model)


def test_sizes_that_are_too_much_together_are_refused() -> None:
    config = AutoConfig.for_model("bert", hidden_size=20_000, intermediate_size=60_000, num_hidden_layers=900)
    with pytest.raises(UserError, match=r"the bert model has about .+ parameters by its configuration"):
        check_size(config)


@pytest.mark.parametrize("nested", ["[" * 200_000 + "]" * 200_000, '{"a":' * 200_000 + "1" + "}" * 200_000])
def test_a_configuration_nested_deeply_is_refused(nested: str, model: Path) -> None:
    (model / "config.json").write_text(f'{{"model_type": "roberta", "a": {nested}}}')
    with pytest.raises(UserError, match=r"config\.json is nested too deeply"):
        load_model_folder(model)


@pytest.mark.parametrize("model_type", sorted(ALL_TINY_CONFIGS))
def test_the_estimate_is_near_the_parameters(model_type: str) -> None:
    model = make_tiny(model_type, **ALL_TINY_CONFIGS[model_type])
    check_size(model.config)
    num_parameters = sum(int(weight.shape.num_elements()) for weight in model.weights)
    assert num_parameters / 10 < estimate_parameters(model.config) < 4 * num_parameters


def test_memory_is_that_of_the_machine_or_less() -> None:
    assert 10**8 < measure_memory() <= 10**14
