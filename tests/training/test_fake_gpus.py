"""The shipped recipe for several GPUs, as written, on devices that claim to be GPUs."""

import subprocess
import sys

import pytest

from tests.folders import CHECKOUT


@pytest.mark.parametrize(
    "overrides",
    [(), ("train.precision=float16", "train.steps_per_execution=5"), ("train.rematerialize=true",)],
)
def test_the_recipe_for_several_gpus_can_be_traced(overrides: tuple[str, ...]) -> None:
    traced = subprocess.run(
        [sys.executable, "-m", "tests.training.fake_gpus", "configs/multi_gpu.yaml", *overrides],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert traced.stdout == "2 replicas traced\n", traced.stderr[-3000:]
