"""A plot is whole or the one before."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from tfmlm.training.run_log import plot_metrics

HEADER = "step,loss,learning_rate,tokens_per_second,eval_loss,eval_perplexity\n"


def test_a_plot_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics, plots = tmp_path / "metrics.csv", tmp_path / "plots"
    metrics.write_text(HEADER + "1,2.0,0.1,100,,\n2,1.5,0.1,100,,\n")
    plot_metrics(metrics.parent, plots)
    before = {path.name: path.read_bytes() for path in plots.iterdir()}
    assert before.keys() == {"loss.png", "perplexity.png", "learning_rate.png", "tokens_per_second.png"}

    def write_half(figure: Figure, path: Path, **settings: object) -> None:
        Path(path).write_bytes(b"\x89PNG")
        raise OSError("no room")

    monkeypatch.setattr(Figure, "savefig", write_half)
    with pytest.raises(OSError, match="no room"):
        plot_metrics(metrics.parent, plots)
    assert {path.name: path.read_bytes() for path in plots.iterdir()} == before
