"""Freezing and layer-wise learning rates, by the depth that a variable's name tells."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import CONFIG_MAPPING, TFAutoModelForMaskedLM

from tests.tiny import ALL_TINY_CONFIGS
from tests.tiny_run import make_config, read_weights
from tfmlm.config import ModelConfig
from tfmlm.errors import UserError
from tfmlm.run import run
from tfmlm.training.optimizer import choose_trained, measure_depths, scale_by_depth


def make_variables(model_type: str) -> list:
    fields = CONFIG_MAPPING[model_type](vocab_size=50, **ALL_TINY_CONFIGS[model_type])
    model = TFAutoModelForMaskedLM.from_config(fields)
    model(model.dummy_inputs)
    return model.trainable_variables


@pytest.mark.parametrize("model_type", sorted(ALL_TINY_CONFIGS.keys() - {"flaubert", "xlm"}))
def test_embeddings_layers_and_head_are_told_apart(model_type: str) -> None:
    depths = measure_depths(make_variables(model_type))
    num_layers = 1 if model_type == "albert" else 2
    assert set(depths.values()) == set(range(num_layers + 2))
    for name, depth in depths.items():
        assert ("embedding" in name or "relative_attention_bias" in name) == (depth == 0), name
        assert (f"_._{depth - 1}/" in name) == (1 <= depth <= num_layers), name


def test_rates_fall_by_a_factor_each_layer() -> None:
    variables = make_variables("bert")
    depths, scales = measure_depths(variables), scale_by_depth(variables, 0.5)
    assert {depths[name]: scale for name, scale in scales.items()} == {0: 0.125, 1: 0.25, 2: 0.5, 3: 1.0}


def test_freezing_takes_the_embeddings_or_the_lowest_layers() -> None:
    variables = make_variables("roberta")
    depths = measure_depths(variables)

    def trained(**model: object) -> set[int]:
        return {depths[variable.name] for variable in choose_trained(variables, ModelConfig(**model))}

    assert trained() == {0, 1, 2, 3}
    assert trained(freeze_embeddings=True) == {1, 2, 3}
    assert trained(freeze_layers=1) == {0, 2, 3}
    assert trained(freeze_embeddings=True, freeze_layers=2) == {3}
    with pytest.raises(UserError, match="freeze_layers is 3, and the model has 2 layers"):
        trained(freeze_layers=3)


def test_frozen_weights_stay_and_lower_layers_move_less(tmp_path: Path, text_file: Path) -> None:
    config = make_config(tmp_path, text_file, num_layers=2, max_steps=3)

    def train(name: str, **changes: object) -> dict[str, np.ndarray]:
        folder = tmp_path / name
        run(replace(config, run=replace(config.run, output_dir=str(folder)), **changes))
        return read_weights(folder)

    still = replace(config.optimizer, learning_rate=1e-12)
    before = train("before", optimizer=still)
    frozen = train("frozen", model=replace(config.model, freeze_embeddings=True, freeze_layers=1))
    moved = {name for name, values in frozen.items() if np.abs(values - before[name]).max() > 1e-6}
    assert moved
    assert not [name for name in moved if "embeddings" in name or "layer.0." in name]
    assert [name for name in moved if "layer.1." in name]

    decayed = train("decayed", optimizer=replace(config.optimizer, layer_decay=0.1, warmup_steps=0))

    def movement(depth_name: str) -> float:
        names = [name for name in before if depth_name in name and before[name].ndim == 2]
        return max(float(np.abs(decayed[name] - before[name]).max()) for name in names)

    # Adam moves each weight by about the learning rate, whatever the gradient.
    assert movement("layer.0.") == pytest.approx(0.1 * movement("layer.1."), rel=0.2)
