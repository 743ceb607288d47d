"""The shipped configurations, as written, on devices that claim to be GPUs."""

import subprocess
import sys

import pytest

from tests.folders import CHECKOUT

MANY = "configs/multi_gpu.yaml"


@pytest.mark.parametrize(
    ("config", "overrides"),
    [
        (MANY, ()),
        (MANY, ("distribute.strategy=multi_worker",)),
        (MANY, ("train.precision=float16", "train.steps_per_execution=5")),
        (MANY, ("train.rematerialize=true",)),
        # What `auto` chooses on a machine with two GPUs.
        *(
            pytest.param(f"configs/{name}.yaml", ("distribute.strategy=mirrored",), marks=pytest.mark.long)
            for name in ("eli5_distilroberta", "quickstart", "scratch")
        ),
    ],
)
def test_a_configuration_can_be_traced_on_several_gpus(config: str, overrides: tuple[str, ...]) -> None:
    traced = subprocess.run(
        [sys.executable, "-m", "tests.training.fake_gpus", config, *overrides],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert traced.stdout == "2 replicas traced\n", traced.stderr[-3000:]
