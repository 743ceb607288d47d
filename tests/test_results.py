"""A perplexity is a finite number, whatever the loss."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from tests.tiny_run import make_config
from tfmlm.errors import UserError
from tfmlm.results import Evaluation, to_perplexity
from tfmlm.training.evaluate import evaluate
from tfmlm.training.setup import set_up


def test_it_is_the_exponential() -> None:
    assert to_perplexity(2.0) == math.exp(2.0)
    assert to_perplexity(0.0) == 1.0


@pytest.mark.parametrize("loss", [701.0, 710.0, 1e30, math.inf])
def test_a_large_loss_stays_a_number_of_json(loss: float) -> None:
    assert math.isfinite(Evaluation(loss, 0.0, 0.0).perplexity)
    json.dumps(Evaluation(loss, 0.0, 0.0).perplexity, allow_nan=False)


@pytest.mark.parametrize("weight", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_told(weight: float, tmp_path: Path, text_file: Path) -> None:
    setup = set_up(make_config(tmp_path, text_file, max_steps=1))
    for variable in setup.model.model.variables:
        variable.assign(np.full(variable.shape, weight, np.float32))
    with pytest.raises(UserError, match=r"loss on the held-out text is .*; train anew with a lower"):
        evaluate(setup.model, setup.validation)
