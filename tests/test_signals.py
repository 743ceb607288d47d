"""Signals are noted where that is wanted, never lost, and given back however a stage ends."""

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow as tf

from tests.tiny import SENTENCES
from tests.tiny_run import PowerCutError, assert_same_weights, cut_after, in_folder, make_config
from tfmlm import run as run_module
from tfmlm.config import Config, ExportConfig
from tfmlm.errors import PreemptedError, UserError
from tfmlm.preview.options import ServeOptions
from tfmlm.preview.server import serve
from tfmlm.run import run
from tfmlm.signals import handling_signals, noting_stop_signals
from tfmlm.training import setup as setup_stage
from tfmlm.training import train as fit_module
from tfmlm.training.callbacks import make_callbacks

BOTH = (signal.SIGTERM, signal.SIGINT)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in BOTH]


@pytest.fixture(autouse=True)
def handlers_before() -> Iterator[list[object]]:
    before = handlers()
    yield before
    for number, handler in zip(BOTH, before, strict=True):
        signal.signal(number, handler)


def test_a_signal_is_noted_and_does_nothing_else() -> None:
    with noting_stop_signals(*BOTH) as notice:
        assert not notice.stop_requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert notice.stop_requested
    with noting_stop_signals(*BOTH) as notice:
        assert not notice.stop_requested


def test_handlers_come_back_after_an_error(handlers_before: list[object]) -> None:
    with pytest.raises(PowerCutError), noting_stop_signals(*BOTH):
        raise PowerCutError
    assert handlers() == handlers_before


def test_another_thread_changes_nothing(handlers_before: list[object]) -> None:
    seen: list[object] = []

    def look() -> None:
        with handling_signals(signal.default_int_handler, *BOTH):
            seen.extend(handlers())

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == handlers_before


def test_a_training_that_fails_gives_sigterm_back(
    tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch, handlers_before: list[object]
) -> None:
    cut_after(1, monkeypatch)
    with pytest.raises(PowerCutError):
        run(make_config(tmp_path, text_file, max_steps=2))
    assert handlers() == handlers_before


def test_sigterm_after_the_last_step_was_looked_at_is_heeded(
    tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(batch: int, logs: object) -> None:
        if batch == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def make(*arguments: object) -> list[tf.keras.callbacks.Callback]:
        return [*make_callbacks(*arguments), tf.keras.callbacks.LambdaCallback(on_train_batch_end=end)]

    config = make_config(tmp_path, text_file, max_steps=2, checkpoint_every_steps=50)
    with monkeypatch.context() as patch:
        patch.setattr(fit_module, "make_callbacks", make)
        with pytest.raises(PreemptedError, match="told to end amid an evaluation"):
            run(config)
    assert run(config).result.steps == 2


STAGES = {
    "reading the text": (setup_stage, "prepare_data"),
    "making the model": (setup_stage, "make_model"),
    "the first samples": (run_module, "_fill_before_training"),
    "an evaluation": (fit_module, "evaluate_held_out"),
    "the log": (fit_module, "RunLog"),
    "saving the model": (run_module, "save_model_folder"),
    "the export": (run_module, "export_run"),
    "the card": (run_module, "write_card"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The configuration of a run that nothing has disturbed, which is finished."""
    folder = tmp_path_factory.mktemp("whole")
    text = folder / "text.txt"
    text.write_text("\n".join(SENTENCES * 4))
    config = make_config(folder, text, dropout=True, max_steps=5, evaluate_every_steps=2)
    export = ExportConfig(dir=str(folder / "exports"), text_signature="off")
    config = replace(config, export=export, run=replace(config.run, sample_texts=["a [MASK] list"]))
    run(config)
    return config


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES)
def test_sigterm_at_any_stage_ends_the_run_which_goes_on_to_the_same_bits(
    stage: str, whole: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = in_folder(whole, tmp_path / "run")
    module, name = STAGES[stage]
    function = getattr(module, name)

    def be_told(*arguments: object, **options: object) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return function(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, be_told)
        with pytest.raises(PreemptedError, match="told to end"):
            run(config)
    assert not (tmp_path / "run" / "result.json").exists()
    finished = run(config)
    assert finished
    assert finished.result.steps == 5
    assert_same_weights(config.run_dir, whole.run_dir)


def test_a_server_that_cannot_start_gives_the_signals_back(
    tmp_path: Path, handlers_before: list[object]
) -> None:
    with pytest.raises(UserError, match="has no version"):
        serve(tmp_path, ServeOptions(name="none", port=0, grpc_port=0), print)
    assert handlers() == handlers_before
