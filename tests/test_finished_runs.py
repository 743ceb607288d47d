"""What a run says of itself is what the commands find in its folder, whatever its tokenizer."""

import json

import numpy as np
import pytest

from tests.finished import Finished
from tfmlm.cli.main import main


def ask(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([*map(str, arguments)]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("part", ["run_dir", "model_dir"])
def test_evaluate_gives_the_runs_perplexity_to_six_digits(
    any_run: Finished, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = json.loads((any_run.run_dir / "result.json").read_text())
    answer = json.loads(ask(capsys, "evaluate", getattr(any_run, part), "--json"))
    assert f"{answer['perplexity']:.6g}" == f"{result['perplexity']:.6g}"


def test_run_model_and_saved_model_predict_the_samples(
    any_run: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    result = json.loads((any_run.run_dir / "result.json").read_text())
    samples = any_run.config.run.sample_texts
    expected = [result["samples_after"][text] for text in samples]
    assert [len(masks) for masks in expected] == [1, 2]
    for path in (any_run.run_dir, any_run.model_dir, any_run.version.parent, any_run.version):
        lines = ask(capsys, "predict", path, *samples, "--top-k", 5, "--json").splitlines()
        for line, masks in zip(lines, expected, strict=True):
            for ours, theirs in zip(json.loads(line), masks, strict=True):
                assert set(ours[0]) == {"score", "token", "token_str", "sequence"}
                assert [c["sequence"] for c in ours] == [c["sequence"] for c in theirs]
                assert [c["token"] for c in ours] == [c["token"] for c in theirs]
                np.testing.assert_allclose(
                    [c["score"] for c in ours], [c["score"] for c in theirs], atol=1e-5
                )
