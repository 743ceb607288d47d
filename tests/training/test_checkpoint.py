"""Checkpoints: whole or not there, the newest and the best kept, a damaged one passed over."""

import errno
import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from transformers import CONFIG_MAPPING, TFAutoModelForMaskedLM

from tests.tiny import without_dropout
from tests.waiting import WAIT_SECONDS
from tfmlm.config import Config, DataConfig, DistributeConfig, OptimizerConfig, TrainConfig
from tfmlm.errors import UserError
from tfmlm.training.checkpoint import TrainingCheckpoint
from tfmlm.training.masked_lm import MaskedLanguageModel
from tfmlm.training.optimizer import make_optimizer
from tfmlm.training.strategy import make_strategy, precision_policy


def make_model(seed: int = 0, config: Config | None = None) -> MaskedLanguageModel:
    tf.keras.utils.set_random_seed(seed)
    pretrained = TFAutoModelForMaskedLM.from_config(
        CONFIG_MAPPING["bert"](vocab_size=50, **without_dropout("bert"))
    )
    pretrained(pretrained.dummy_inputs)
    model = MaskedLanguageModel(pretrained, config or Config())
    model.compile(make_optimizer(OptimizerConfig(), 10))
    return model


def train_to(model: MaskedLanguageModel, step: int) -> None:
    """Changes everything that a checkpoint must hold."""
    for variable in [*model.model.variables, *model.optimizer.variables()]:
        variable.assign(tf.cast(tf.fill(variable.shape, step), variable.dtype))
    model.step.assign(step)


def first_weight(model: MaskedLanguageModel) -> float:
    return float(tf.reshape(model.model.variables[0], [-1])[0])


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A folder with checkpoints of the steps 1 to 3."""
    model = make_model()
    checkpoint = TrainingCheckpoint(model, tmp_path / "checkpoints", 8, num_kept=3)
    for step in (1, 2, 3):
        train_to(model, step)
        checkpoint.save(seconds=10.0 * step)
        checkpoint.wait()
    return tmp_path / "checkpoints"


def test_everything_comes_back(trained: Path) -> None:
    model = make_model(seed=1)
    checkpoint = TrainingCheckpoint(model, trained, 8)
    assert checkpoint.restore() == 3
    assert float(checkpoint.seconds) == 30.0
    for variable in [*model.model.variables, *model.optimizer.variables()]:
        np.testing.assert_array_equal(variable, np.full(variable.shape, 3), err_msg=variable.name)


def test_one_step_alone_can_be_asked_for(trained: Path) -> None:
    model = make_model(seed=1)
    checkpoint = TrainingCheckpoint(model, trained, 8)
    assert checkpoint.restore_step(2)
    assert int(model.step) == 2
    assert first_weight(model) == 2
    assert not checkpoint.restore_step(4)


def test_its_values_are_the_weights_and_what_the_optimizer_holds(trained: Path) -> None:
    model = make_model(seed=1)
    checkpoint = TrainingCheckpoint(model, trained, 8)
    checkpoint.restore()
    values = checkpoint.list_values()
    assert len(values) > len(model.model.weights) > 0
    for value in values:
        np.testing.assert_array_equal(value, np.full(value.shape, 3))


def test_a_new_run_begins_at_nothing(tmp_path: Path) -> None:
    checkpoint = TrainingCheckpoint(make_model(), tmp_path, 8)
    assert checkpoint.restore() == 0
    state = [
        checkpoint.seconds,
        checkpoint.best_loss,
        checkpoint.stale_evaluations,
        checkpoint.evaluated_step,
    ]
    assert [float(variable) for variable in state] == [0.0, float("inf"), 0.0, 0.0]
    assert not any(variable.trainable for variable in state)


def test_it_is_stale_after_as_many_evaluations_as_patience_has(tmp_path: Path) -> None:
    checkpoint = TrainingCheckpoint(make_model(), tmp_path, 8)
    checkpoint.stale_evaluations.assign(3)
    assert [checkpoint.is_stale(patience) for patience in (2, 3, 4, None)] == [True, True, False, False]


def test_the_newest_are_kept(tmp_path: Path) -> None:
    model = make_model()
    checkpoint = TrainingCheckpoint(model, tmp_path, 8)
    assert checkpoint.newest is None
    for step in (1, 2, 10):
        train_to(model, step)
        checkpoint.save(0.0)
        checkpoint.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000010"]
    assert checkpoint.newest == tmp_path / "step-00000010"


def test_the_best_is_kept_beside_them_and_comes_back(tmp_path: Path) -> None:
    model = make_model()
    checkpoint = TrainingCheckpoint(model, tmp_path, 8, num_kept=1)
    for step, loss in ((1, 5.0), (2, 4.0), (3, None)):
        train_to(model, step)
        if loss is not None:
            checkpoint.save_best(loss)
            checkpoint.wait()
        checkpoint.save(0.0)
        checkpoint.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best-00000002", "step-00000003"]
    again = make_model(seed=1)
    resumed = TrainingCheckpoint(again, tmp_path, 8)
    assert resumed.restore() == 3
    assert float(resumed.best_loss) == 4.0
    assert resumed.restore_best() == 2
    assert first_weight(again) == 2.0


def test_of_several_best_ones_that_a_crash_left_the_last_one_counts(tmp_path: Path) -> None:
    model = make_model()
    checkpoint = TrainingCheckpoint(model, tmp_path, 8)
    for step in (1, 2, 3):
        train_to(model, step)
        checkpoint.save_best(1.0 / step)
        checkpoint.wait()
        (tmp_path / f"best-{step:08d}").rename(tmp_path / f"kept-{step}")
    for step in (1, 2, 3):
        (tmp_path / f"kept-{step}").rename(tmp_path / f"best-{step:08d}")
    train_to(model, 9)
    assert checkpoint.restore_best() == 3
    assert first_weight(model) == 3.0
    train_to(model, 4)
    checkpoint.save_best(0.1)
    checkpoint.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["best-00000004"]


def flip(path: Path) -> None:
    data = bytearray((path / "state.data-00000-of-00001").read_bytes())
    data[len(data) // 2] ^= 1
    (path / "state.data-00000-of-00001").write_bytes(data)


def cut(path: Path) -> None:
    data = (path / "state.data-00000-of-00001").read_bytes()
    (path / "state.data-00000-of-00001").write_bytes(data[: len(data) // 2])


def cut_index(path: Path) -> None:
    (path / "state.index").write_bytes((path / "state.index").read_bytes()[:100])


def remove_data(path: Path) -> None:
    (path / "state.data-00000-of-00001").unlink()


def empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


DAMAGES = [flip, cut, cut_index, remove_data, empty]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_passed_over_with_a_warning(
    damage: Callable[[Path], None], trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damage(trained / "step-00000003")
    model = make_model(seed=1)
    with caplog.at_level(logging.WARNING, "tfmlm"):
        assert TrainingCheckpoint(model, trained, 8).restore() == 2
    assert first_weight(model) == 2.0
    (warning,) = caplog.messages
    assert "step-00000003 is damaged and passed over" in warning


@pytest.mark.parametrize("damage", [*DAMAGES, shutil.rmtree])
def test_best_weights_that_cannot_be_read_leave_the_last_ones(
    damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = make_model()
    checkpoint = TrainingCheckpoint(model, tmp_path, 8)
    train_to(model, 2)
    checkpoint.save_best(4.0)
    checkpoint.wait()
    train_to(model, 3)
    damage(tmp_path / "best-00000002")
    with caplog.at_level(logging.WARNING, "tfmlm"):
        assert checkpoint.restore_best() is None
    assert all((weights == 3).all() for weights in model.model.get_weights())
    assert len(caplog.messages) == (damage is not shutil.rmtree)


def test_if_none_can_be_read_the_run_does_not_start_anew_by_itself(trained: Path) -> None:
    for path in trained.iterdir():
        flip(path)
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read; remove the folder"):
        TrainingCheckpoint(make_model(), trained, 8).restore()


def test_an_unfinished_one_counts_for_nothing_and_is_cleared_away(trained: Path) -> None:
    (trained / "step-00000003").rename(trained / ".step-00000004.123")
    model = make_model()
    checkpoint = TrainingCheckpoint(model, trained, 8)
    assert checkpoint.restore() == 2
    checkpoint.save(0.0)
    checkpoint.wait()
    assert not list(trained.glob(".*"))


def test_a_worker_that_is_not_the_chief_writes_nothing(trained: Path) -> None:
    before = sorted(path.name for path in trained.iterdir())
    model = make_model()
    checkpoint = TrainingCheckpoint(model, trained, 8, num_kept=1, is_writer=False)
    assert checkpoint.restore() == 3
    train_to(model, 9)
    checkpoint.save(0.0)
    checkpoint.wait()
    checkpoint.save_best(1.0)
    checkpoint.wait()
    assert sorted(path.name for path in trained.iterdir()) == before


def test_steps_count_as_numbers_and_not_as_text(tmp_path: Path) -> None:
    model = make_model()
    checkpoint = TrainingCheckpoint(model, tmp_path, 8, num_kept=1)
    for step in (99_999_999, 100_000_000):
        model.step.assign(step)
        checkpoint.save(0.0)
        checkpoint.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["step-100000000"]
    assert checkpoint.restore() == 100_000_000


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    checkpoint = TrainingCheckpoint(make_model(), tmp_path / "file" / "checkpoints", 8)
    checkpoint.save(0.0)
    with pytest.raises(
        UserError, match=r"step-00000000 cannot be written to '.*/file/checkpoints'"
    ) as caught:
        checkpoint.wait()
    assert "is whole" not in str(caught.value)


def test_a_write_that_fails_leaves_what_there_was(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_the_disk(self: tf.train.Checkpoint, path: str) -> None:
        Path(f"{path}.index").write_text("half of it")
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    before = sorted(path.name for path in trained.iterdir())
    model = make_model()
    train_to(model, 4)
    monkeypatch.setattr(tf.train.Checkpoint, "write", fill_the_disk)
    checkpoint = TrainingCheckpoint(model, trained, 8)
    checkpoint.save(0.0)
    with pytest.raises(UserError, match=r"No space left on device; .*step-00000003 is whole"):
        checkpoint.wait()
    assert sorted(path.name for path in trained.iterdir()) == before


def test_what_cannot_be_cleared_away_stops_nothing(trained: Path) -> None:
    """Such as the files that network file systems and file managers leave."""
    (trained / ".nfs0001").write_text("in use")
    model = make_model()
    train_to(model, 4)
    checkpoint = TrainingCheckpoint(model, trained, 8)
    checkpoint.save(0.0)
    checkpoint.wait()
    assert checkpoint.newest == trained / "step-00000004"


def test_the_same_step_can_be_saved_again(trained: Path) -> None:
    model = make_model()
    train_to(model, 3)
    model.model.variables[0].assign(tf.fill(model.model.variables[0].shape, 7.0))
    checkpoint = TrainingCheckpoint(model, trained, 8)
    checkpoint.save(0.0)
    checkpoint.wait()
    again = make_model(seed=1)
    assert TrainingCheckpoint(again, trained, 8).restore() == 3
    assert first_weight(again) == 7.0


# === Beside the training ===


@pytest.fixture
def writing(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Writes begin when it is set."""
    may_begin, write = threading.Event(), tf.train.Checkpoint.write

    def wait_and_write(self: tf.train.Checkpoint, prefix: str) -> None:
        assert may_begin.wait(WAIT_SECONDS)
        write(self, prefix)

    monkeypatch.setattr(tf.train.Checkpoint, "write", wait_and_write)
    return may_begin


@pytest.mark.parametrize(
    ("strategy", "precision"),
    [("one_device", "float32"), ("mirrored", "float16"), ("one_device", "bfloat16")],
)
def test_what_is_written_is_what_was_when_it_was_saved(
    strategy: str, precision: str, tmp_path: Path, writing: threading.Event
) -> None:
    """Real steps go on while it is written: they change the variables in place."""
    train = TrainConfig(per_replica_batch_size=2, precision=precision)
    config = Config(data=DataConfig(block_size=8), train=train)
    rows = np.arange(5, 5 + 4 * 8, dtype=np.int32).reshape(4, 8)
    batch = {name: tf.constant(rows) for name in ("input_ids", "labels")}
    batch["attention_mask"] = tf.ones_like(rows)
    with make_strategy(DistributeConfig(strategy)).scope(), precision_policy(precision):
        model = make_model(config=config)
        checkpoint = TrainingCheckpoint(model, tmp_path, 4)

    def list_all() -> list[np.ndarray]:
        extra = [model.step, checkpoint.seconds, checkpoint.best_loss, checkpoint.evaluated_step]
        return [*checkpoint.list_values(), *(variable.numpy() for variable in extra)]

    def train_on() -> None:
        model.fit(tf.data.Dataset.from_tensors(batch).repeat(2), verbose=0)
        for variable in (checkpoint.evaluated_step, checkpoint.stale_evaluations):
            variable.assign_add(1)

    train_on()
    checkpoint.save_best(2.5)
    checkpoint.save(1.5)
    saved = list_all()
    train_on()
    assert not list(tmp_path.glob("[!.]*"))
    writing.set()
    checkpoint.save(3.0)  # waits for the one before
    later = list_all()
    checkpoint.wait()
    assert any((ours != theirs).any() for ours, theirs in zip(saved, later, strict=True))
    for step, expected in ((4, later), (2, saved)):
        train_on()
        assert checkpoint.restore_step(step)
        for ours, theirs in zip(list_all(), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    train_on()
    assert checkpoint.restore_best() == 2
    for variable, theirs in zip(model.model.weights, saved, strict=False):
        np.testing.assert_array_equal(variable.numpy(), theirs)


def test_who_waits_for_a_checkpoint_is_told_of_each(tmp_path: Path) -> None:
    model, whole = make_model(), []
    checkpoint = TrainingCheckpoint(model, tmp_path, 8, when_saved=lambda: whole.append(checkpoint.newest))
    for step in (1, 2):
        train_to(model, step)
        checkpoint.save_best(1.0 / step)
        checkpoint.save(0.0)
    checkpoint.wait()
    assert whole == [tmp_path / "step-00000001", tmp_path / "step-00000002"]


def test_after_a_failure_nothing_more_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state that tells of best weights that are not there would be worse than none."""
    model = make_model()
    checkpoint = TrainingCheckpoint(model, tmp_path, 8)

    def fill_the_disk(self: tf.train.Checkpoint, prefix: str) -> None:
        monkeypatch.undo()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tf.train.Checkpoint, "write", fill_the_disk)
    train_to(model, 1)
    checkpoint.save_best(1.0)
    checkpoint.save(0.0)
    checkpoint.close()
    with pytest.raises(UserError, match="best-00000001 cannot be written"):
        checkpoint.save(0.0)
    assert not list(tmp_path.iterdir())
