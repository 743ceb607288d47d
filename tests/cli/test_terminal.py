"""What comes from files and servers cannot command a terminal, and streams that are closed are told."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.folders import CHECKOUT
from tfmlm.cli.query import _print
from tfmlm.cli.score import describe_score
from tfmlm.cli.shared import deliver, describe_masks, note, show
from tfmlm.client.client import FilledText
from tfmlm.config import Config
from tfmlm.config.load import dump_config, load_config
from tfmlm.errors import escape_controls
from tfmlm.inference.score import TextScore
from tfmlm.library_logging import show_progress_lines
from tfmlm.results import Candidate

HOSTILE = [
    "\x1b[2J",
    "\u202e",
    "\u2066",
    "\u200b",
    "\u200d",
    "\ufeff",
    "\x9b31m",
    "\x07",
    "\r",
    "\n",
    "\x85",
    "\u2028",
]
hostile = st.lists(st.sampled_from([*HOSTILE, "a", "\u4e2d", "\u3000", " "]), max_size=6).map("".join)


def is_safe(text: str) -> bool:
    return all(letter.isprintable() or letter in "\n\u3000" for letter in text)


def candidate(word: str) -> Candidate:
    return Candidate(score=0.5, token=1, token_str=word, sequence=word)


@given(text=hostile, word=hostile)
def test_words_and_texts_are_escaped_and_keep_their_lines(text: str, word: str) -> None:
    lines = list(describe_masks(text, [[candidate(word)]]))
    assert len(lines) == 2
    assert is_safe("".join(lines))
    assert not any("\n" in line for line in lines)
    assert "\n" not in describe_score(TextScore(text=text, score=1.0, tokens=1))
    assert is_safe(describe_score(TextScore(text=text, score=1.0, tokens=1)))


@pytest.mark.parametrize("letters", HOSTILE)
def test_whatever_is_printed_is_escaped(letters: str, capsys: pytest.CaptureFixture[str]) -> None:
    filled = FilledText(f"a{letters}", [[candidate(letters)]], f"note {letters}")
    show(f"a {letters}")
    note(letters)
    deliver([f"a {letters}"], None)
    _print(filled, as_json=False)
    captured = capsys.readouterr()
    assert is_safe(captured.out + captured.err)
    _print(filled, as_json=True)
    captured = capsys.readouterr()
    assert captured.out.isascii()
    assert captured.out.count("\n") == 1
    assert json.loads(captured.out) == filled.masks
    assert is_safe(captured.err)


def test_ordinary_letters_stay_as_they_are() -> None:
    text = "na\u00efve \u4e2d\u6587\u3000\u00a0\U0001f600\n"
    assert escape_controls(text) == text


@pytest.mark.parametrize("letters", HOSTILE)
def test_a_configuration_is_shown_in_escapes_that_mean_the_same(letters: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("run: {name: " + json.dumps(f"a{letters}b") + "}\nmodel: {name_or_path: m}\n")
    config = load_config(path)
    assert config.run.name == f"a{letters}b"
    text = dump_config(config)
    assert is_safe(text)
    path.write_text(text)
    assert load_config(path) == config
    assert isinstance(config, Config)


def test_progress_lines_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("tfmlm")
    handlers, level = logger.handlers, logger.level
    show_progress_lines()
    logger.warning("token %s", "\x1b[2J")
    logger.handlers, logger.level = handlers, level
    assert capsys.readouterr().err == "token \\x1b[2J\n"


# === Streams that are closed ===


def run(redirection: str) -> subprocess.CompletedProcess[str]:
    command = f"{sys.executable} -m tfmlm config {redirection}"
    return subprocess.run(
        ["bash", "-c", command],
        cwd=CHECKOUT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_closed_standard_output_is_one_line() -> None:
    done = run(">&-")
    assert done.returncode == 2
    assert done.stderr == (
        "tfmlm: the standard output is closed; give it a file or a terminal, or >/dev/null\n"
    )


def test_other_closed_streams_do_no_harm() -> None:
    done = run("<&- 2>&-")
    assert done.returncode == 0
    assert "data.max_text_bytes" in done.stdout


def test_a_reader_that_has_gone_ends_a_command_as_it_ends_others() -> None:
    done = run('| head -0; exit "${PIPESTATUS[0]}"')
    assert done.returncode == 141
    assert done.stderr == ""


@pytest.mark.parametrize("megabytes", [600, 1500])
def test_too_little_address_space_is_one_line(megabytes: int, tmp_path: Path) -> None:
    """TensorFlow would abort somewhere."""
    command = f"ulimit -v {megabytes * 1024}; {sys.executable} -m tfmlm predict {tmp_path} '<mask>'"
    done = subprocess.run(["bash", "-c", command], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("tfmlm: ulimit -v")
    assert done.stderr.count("\n") == 1
