"""Shell completion, in a real shell."""

import shutil
import subprocess

import pytest

from tfmlm.cli.main import main


def write_script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


def complete(script: str, *words: str) -> list[str]:
    """What bash offers for the last of the words."""
    line = " ".join(words)
    code = (
        f"{script}\n"
        # Only readline can set options of a running completion.
        'compopt() { echo "option $*"; }\n'
        f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}\n"
        "[[ ${COMP_WORDS[COMP_CWORD]} == '\"\"' ]] && COMP_WORDS[COMP_CWORD]=''\n"
        "_tfmlm_complete\n"
        "printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


def test_bash_completes_commands_options_and_keys(capsys: pytest.CaptureFixture[str]) -> None:
    script = write_script("bash", capsys)
    done = subprocess.run(
        ["bash", "-c", f"{script}\ncomplete -p tfmlm"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "complete -o bashdefault -F _tfmlm_complete tfmlm\n"
    assert complete(script, "tfmlm", "pre") == ["prepare", "predict"]
    assert complete(script, "tfmlm", "predict", "--to") == ["--top-k"]
    keys = complete(script, "tfmlm", "train", "any.yaml", "train.max_")
    assert keys == ["option -o nospace", "train.max_steps=", "train.max_seconds="]
    assert complete(script, "tfmlm", "completion", "") == ["bash", "zsh", "fish"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_read_their_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    script = write_script(shell, capsys)
    assert "tfmlm" in script
    assert "train.max_steps=" in script
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed: its script was written and not read")
    subprocess.run([shell, "--no-execute"], input=script, text=True, check=True)
