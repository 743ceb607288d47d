"""What `tfmlm train` writes while it trains: on a terminal of 80 columns, and into a file."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.tiny_run import make_config
from tfmlm.config.load import dump_config

COLUMNS = 80
STEPS = 8


def write_config(folder: Path, text_file: Path) -> list[str]:
    """The command of a run with two evaluations on its way."""
    path = folder / "config.yaml"
    path.write_text(dump_config(make_config(folder, text_file, max_steps=STEPS, evaluate_every_steps=4)))
    return [sys.executable, "-m", "tfmlm", "train", str(path)]


def run_on_terminal(command: list[str], **environment: str) -> str:
    """What the command writes to a terminal that is its standard error."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    settings = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env=settings | {"TERM": "xterm-256color"} | environment,
    ) as process:
        os.close(theirs)
        written = b""
        while True:
            try:
                written += os.read(ours, 65536)
            except OSError:  # EIO: the other side is closed
                break
    os.close(ours)
    assert process.returncode == 0, written.decode()
    return written.decode()


def show_screen(written: str) -> list[str]:
    """The lines that stay on the screen; each carriage return begins its line again."""
    lines = []
    for line in re.sub(r"\x1b\[\d*m", "", written).replace("\r\n", "\n").split("\n"):
        screen = ""
        for part in line.split("\r"):
            assert len(part) <= COLUMNS, part
            screen = part + screen[len(part) :]
        lines.append(screen.rstrip())
    return lines


@pytest.mark.long
@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_shows_one_bar_and_a_line_for_each_report(
    tmp_path: Path, text_file: Path, no_color: str
) -> None:
    written = run_on_terminal(write_config(tmp_path, text_file), NO_COLOR=no_color)
    assert ("\x1b[32m" in written) == (not no_color)
    assert not no_color or "\x1b" not in written.replace("\x1b[A", "")
    *lines, bar, end = show_screen(written)
    assert end == ""
    assert re.fullmatch(rf"training 100%\|█+\| {STEPS}/{STEPS} 00:00 left, loss [\d.]+, [\d,]+ tokens/s", bar)
    assert [line.split(":")[0] for line in lines[-3:]] == [
        "perplexity before training",
        "perplexity at step 4",
        f"perplexity at step {STEPS}",
    ]
    assert "Warning" not in written
    assert len(lines) == 7
    assert not any("training " in line and "|" in line for line in lines)


@pytest.mark.long
def test_a_file_gets_plain_lines(tmp_path: Path, text_file: Path) -> None:
    done = subprocess.run(write_config(tmp_path, text_file), capture_output=True, check=True)
    written = done.stdout.decode() + done.stderr.decode()
    assert "\r" not in written
    assert "\x1b" not in written
    steps = re.findall(r"^step (\d+) of 8, \d\d:\d\d left, loss [\d.]+, [\d,]+ tokens/s$", written, re.M)
    assert steps[0] == "1"
    assert steps[-1] == "8"
