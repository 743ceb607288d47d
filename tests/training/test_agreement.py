"""Workers that differ in anything do not train together; two in two threads stand for two machines."""

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import SENTENCES
from tests.tiny_run import in_folder, make_config, name_workers
from tests.waiting import WAIT_SECONDS
from tfmlm.config import Config
from tfmlm.config.schema import list_keys
from tfmlm.errors import UserError
from tfmlm.run_folder import RunFolder
from tfmlm.training import agreement
from tfmlm.training.agreement import agree_on_start, restore_together
from tfmlm.training.checkpoint import TrainingCheckpoint
from tfmlm.training.cluster import read_cluster
from tfmlm.training.setup import Setup, set_up

ADDRESS = r"worker 1 \(127\.0\.0\.1:\d+\)"

Together = Callable[[Callable[[int], Any]], list[Any]]


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> Together:
    """Calls a function with 0 and with 1 at the same time; what it raises is given as it is."""
    mine = threading.local()
    met = threading.Barrier(2)
    given: dict[str, dict[int, Any]] = {}
    monkeypatch.setenv("TF_CONFIG", name_workers(2)[0]["TF_CONFIG"])
    cluster = read_cluster()

    def gather(name: str, value: Any, wait_seconds: float) -> list[Any]:
        given.setdefault(name, {})[mine.number] = value
        met.wait(WAIT_SECONDS)
        return [given[name][number] for number in range(2)]

    monkeypatch.setattr(agreement, "gather", gather)
    monkeypatch.setattr(agreement, "read_cluster", lambda: cluster._replace(number=mine.number))

    def call(function: Callable[[int], Any]) -> list[Any]:
        def work(number: int) -> Any:
            mine.number = number
            try:
                return function(number)
            except UserError as error:
                return error

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(work, range(2)))

    return call


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("agreement")
    text = folder / "text.txt"
    text.write_text("\n".join(SENTENCES * 10))
    return make_config(folder, text)


@pytest.fixture(scope="module")
def setups(config: Config) -> list[Setup]:
    return [set_up(config), set_up(config)]


@pytest.fixture(scope="module")
def setup_of_other_text(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Setup:
    file = tmp_path_factory.mktemp("other") / "text.txt"
    file.write_text("\n".join(reversed(SENTENCES * 10)))
    return set_up(replace(config, data=replace(config.data, train_files=[str(file)])))


def open_checkpoints(setups: list[Setup], folders: list[Path]) -> list[TrainingCheckpoint]:
    return [
        TrainingCheckpoint(setup.model, folder, 8, num_kept=9, is_writer=number == 0)
        for number, (setup, folder) in enumerate(zip(setups, folders, strict=True))
    ]


def assert_refused(answers: list[Any], message: str) -> None:
    """All workers end, with the same line."""
    assert {str(answer) for answer in answers} == {str(answers[0])}
    with pytest.raises(UserError, match=message):
        raise answers[0]


# === Before ===


def start_with(together: Together, configs: list[Config], setups: list[Setup], folder: Path) -> list[Any]:
    checkpoints = open_checkpoints(setups, [folder, folder])
    folders = [RunFolder(folder), RunFolder(folder / "scratch", chief_path=folder)]
    return together(
        lambda number: agree_on_start(configs[number], setups[number], checkpoints[number], folders[number])
    )


def test_the_same_may_start(together: Together, config: Config, setups: list[Setup], tmp_path: Path) -> None:
    other = in_folder(config, tmp_path / "elsewhere")
    other = replace(other, distribute=replace(other.distribute, wait_seconds=7.0))
    other = replace(other, train=replace(other.train, callbacks=[{"class": "of.the.first.alone"}]))
    assert start_with(together, [config, other], setups, tmp_path) == [None, None]


MAY_DIFFER = ("run.output_dir", "distribute.wait_seconds", "train.callbacks")


@pytest.mark.parametrize(
    ("section", "key"),
    [(key.section, key.name) for key in list_keys() if key.section != "hub" and str(key) not in MAY_DIFFER],
)
def test_every_key_must_be_the_same(
    section: str, key: str, together: Together, config: Config, setups: list[Setup], tmp_path: Path
) -> None:
    values = replace(getattr(config, section), **{key: "another"})
    other = replace(config, **{section: values})
    answers = start_with(together, [config, other], setups, tmp_path)
    assert_refused(answers, rf"{ADDRESS} has another configuration than the first \({section}\.{key}\)")


def test_other_text_is_refused(
    together: Together, config: Config, setups: list[Setup], setup_of_other_text: Setup, tmp_path: Path
) -> None:
    answers = start_with(together, [config, config], [setups[0], setup_of_other_text], tmp_path)
    assert_refused(answers, f"{ADDRESS} has other text or another tokenizer than the first")


# === The step ===


@pytest.fixture
def saved(setups: list[Setup], tmp_path: Path) -> Path:
    """A folder with checkpoints of steps 3 and 6."""
    folder = tmp_path / "checkpoints"
    checkpoint = TrainingCheckpoint(setups[0].model, folder, 8, num_kept=9)
    for step in (3, 6):
        setups[0].model.step.assign(step)
        checkpoint.save(float(step))
    checkpoint.close()
    return folder


def restore(together: Together, config: Config, checkpoints: list[TrainingCheckpoint]) -> list[Any]:
    return together(lambda number: restore_together(config, checkpoints[number]))


def test_all_go_on_from_the_step_that_the_chief_has(
    together: Together, config: Config, setups: list[Setup], saved: Path, tmp_path: Path
) -> None:
    ahead = shutil.copytree(saved, tmp_path / "ahead")
    shutil.rmtree(saved / "step-00000006")
    assert restore(together, config, open_checkpoints(setups, [saved, ahead])) == [3, 3]
    assert [int(setup.model.step) for setup in setups] == [3, 3]


def lag(folder: Path) -> None:
    shutil.rmtree(folder / "step-00000006")


def damage(folder: Path) -> None:
    for path in (folder / "step-00000006").glob("*.data*"):
        path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize("spoil", [lag, damage, shutil.rmtree])
def test_a_worker_that_cannot_follow_says_what_it_lacks(
    spoil: Callable[[Path], None],
    together: Together,
    config: Config,
    setups: list[Setup],
    saved: Path,
    tmp_path: Path,
) -> None:
    copy = shutil.copytree(saved, tmp_path / "copy")
    spoil(copy)
    answers = restore(together, config, open_checkpoints(setups, [saved, copy]))
    assert_refused(
        answers, f"{ADDRESS} cannot read the checkpoint of step 6 in '{copy}', from which the first"
    )


@pytest.mark.parametrize("of_optimizer", [False, True])
def test_other_weights_are_refused(
    of_optimizer: bool, together: Together, config: Config, setups: list[Setup], saved: Path, tmp_path: Path
) -> None:
    """As in a folder of another run, with a checkpoint of the same step."""
    model = setups[0].model
    variable = (model.optimizer if of_optimizer else model.model).weights[-1]
    variable.assign(variable + 1)
    other = tmp_path / "other"
    model.step.assign(6)
    checkpoint = TrainingCheckpoint(model, other, 8)
    checkpoint.save(6.0)
    checkpoint.close()
    answers = restore(together, config, open_checkpoints(setups, [saved, other]))
    assert_refused(answers, f"{ADDRESS} holds other weights at step 6 than the first")
