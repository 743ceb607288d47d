"""Fixtures that every test may use, and the settings that must precede TensorFlow."""

import gc
import os
import resource
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

# Before tfmlm and the libraries are imported: no test reads or fills the user's cache, or asks the Hub.
os.environ["TFMLM_CACHE"] = tempfile.mkdtemp(prefix="tfmlm-test-cache-")
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="tfmlm-test-hf-")
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import tensorflow as tf
from hypothesis import settings
from tokenizers import ByteLevelBPETokenizer
from transformers import BertTokenizerFast, PreTrainedTokenizerFast, RobertaTokenizerFast

from tests import fuzzing
from tests.faults.table import NoteFault, make_row, write_table
from tests.finished import (
    Finished,
    Signatures,
    assert_only_read,
    finish_from_hub,
    finish_from_scratch,
    make_once,
    save_untraced,
)
from tests.hub.server import HubServer, running_hub
from tests.tiny import SENTENCES
from tests.tiny_run import Command, make_command, make_config
from tfmlm.config import Config, TokenizerConfig
from tfmlm.library_logging import quieten_libraries

# The same examples each time: a suite that fails by chance tells little. `make fuzz` draws new ones.
settings.register_profile("suite", derandomize=not fuzzing.SECONDS)
settings.load_profile("suite")


@pytest.fixture(scope="session", autouse=True)
def two_logical_cpus() -> None:
    """Two replicas on one machine: real `tf.distribute`, without a GPU."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    # Its default is false where the first thing computed is a graph, such as a SavedModel that is loaded.
    tf.config.set_soft_device_placement(True)


@pytest.fixture(scope="session", autouse=True)
def quiet_libraries() -> None:
    """As the commands do, but warnings stay errors."""
    quieten_libraries(ignore_warnings=False)


@pytest.fixture
def note_fault(record_property: Callable[[str, object], None], tmp_path: Path) -> NoteFault:
    """Notes what became of a fault, for the table of `make faults`."""

    def note(fault: str, exit_code: int | None, saw: str, lost: str = "nothing") -> None:
        record_property("fault", list(make_row(tmp_path, fault, exit_code, saw, lost)))

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints what the tests took and, where the tests of faults alone were run, the table of faults."""
    if terminalreporter.config.option.markexpr == "fault":
        terminalreporter.write_line(write_table(terminalreporter.getreports("passed")))
    # The workers have ended, and count among the children with all that they started and waited for.
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    minutes = sum(each.ru_utime + each.ru_stime for each in used) / 60
    terminalreporter.write_line(f"{minutes:.1f} CPU minutes, user and system, of all processes")


@pytest.fixture(scope="session")
def word_tokenizer() -> BertTokenizerFast:
    """WordPiece; [PAD] [UNK] [CLS] [SEP] [MASK] are 0 to 4."""
    from tfmlm.data.tokenizer_training import train_tokenizer

    return train_tokenizer([SENTENCES], TokenizerConfig(train_vocab_size=300))


@pytest.fixture(scope="session")
def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE as RoBERTa has it; <s> <pad> </s> <unk> <mask> are 0 to 4."""
    bpe = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bpe.train_from_iterator(SENTENCES, vocab_size=400, special_tokens=special, show_progress=False)
    with tempfile.TemporaryDirectory() as folder:
        bpe.save_model(folder)
        return RobertaTokenizerFast.from_pretrained(folder)


@pytest.fixture(scope="session", params=["word_tokenizer", "byte_tokenizer"])
def any_tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    """Each of the two in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def piece_tokenizer() -> PreTrainedTokenizerFast:
    """Unigram pieces as XLM-RoBERTa has them."""
    from tfmlm.data.tokenizer_training import train_tokenizer

    return train_tokenizer([SENTENCES], TokenizerConfig(train_vocab_size=300, algorithm="unigram"))


# === Finished runs, one for each kind of tokenizer: to be read, never to be written to ===


@pytest.fixture(scope="session", autouse=True)
def only_read(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Looks at the end whether a test has changed what is made once."""
    yield
    assert_only_read(tmp_path_factory)


@pytest.fixture(scope="session")
def word_run(tmp_path_factory: pytest.TempPathFactory, word_tokenizer: BertTokenizerFast) -> Finished:
    """Of a BERT with WordPiece."""
    return Finished(
        make_once(
            tmp_path_factory, "word-run", lambda folder: finish_from_scratch(folder, word_tokenizer, "bert")
        )
    )


@pytest.fixture(scope="session")
def byte_run(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: PreTrainedTokenizerFast) -> Finished:
    """Of a RoBERTa with byte-level BPE, trained on from a folder of the Hub."""
    return Finished(
        make_once(tmp_path_factory, "byte-run", lambda folder: finish_from_hub(folder, byte_tokenizer))
    )


@pytest.fixture(scope="session")
def piece_run(tmp_path_factory: pytest.TempPathFactory, piece_tokenizer: PreTrainedTokenizerFast) -> Finished:
    """Of an XLM-RoBERTa with unigram pieces."""
    return Finished(
        make_once(
            tmp_path_factory,
            "piece-run",
            lambda folder: finish_from_scratch(folder, piece_tokenizer, "xlm-roberta"),
        )
    )


@pytest.fixture(scope="session", params=["word_run", "byte_run", "piece_run"])
def any_run(request: pytest.FixtureRequest) -> Finished:
    """Each of the three in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> Signatures:
    """Exports are not traced; these are the functions of the last one."""
    functions: Signatures = {}

    def save(module: tf.Module, folder: str, signatures: Signatures) -> None:
        functions.clear()
        functions.update(signatures)
        save_untraced(module, folder, signatures)

    monkeypatch.setattr(tf.saved_model, "save", save)
    return functions


@pytest.fixture
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither this project's cache nor that of datasets."""
    import datasets

    monkeypatch.setenv("TFMLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.fixture
def left_open() -> Iterator[None]:
    """Collects the files that the CSV reader of datasets does not close while their warning is ignored."""
    yield
    gc.collect()


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    """A plain text file, one text a line."""
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(SENTENCES * 4), encoding="utf-8")
    return path


@pytest.fixture
def config(tmp_path: Path, text_file: Path) -> Config:
    """A tiny run in `run`; tests of other runs have a fixture of their own."""
    return make_config(tmp_path, text_file)


@pytest.fixture
def command(tmp_path: Path, config: Config, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs a command on the tiny run."""
    return make_command(config, tmp_path / "config.yaml", capfd)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A Hub of the test's own, which is empty."""
    with running_hub() as server:
        yield server


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting needs rights that this user has not: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
