"""Everything that a person may get wrong, and a part of what tfmlm says to it.

The table is tested in `test_bad_input.py`, and `python -m tests.commands.bad_input` prints it as
`docs/bad-input.md`.
"""

from tests.commands.bad_input.case import Case
from tests.commands.bad_input.configuration import CONFIGURATION
from tests.commands.bad_input.data import DATA
from tests.commands.bad_input.model import MODELS, TOKENIZER
from tests.commands.bad_input.run import PREDICT_AND_EXPORT, RUNS
from tests.commands.bad_input.serving import CLIENT, SERVER

TABLE: dict[str, list[Case]] = {
    "Configuration": CONFIGURATION,
    "Data": DATA,
    "Tokenizer": TOKENIZER,
    "Model": MODELS,
    "Run and checkpoint": RUNS,
    "Predict and export": PREDICT_AND_EXPORT,
    "Server": SERVER,
    "Client": CLIENT,
}


def write_page() -> str:
    """The table as Markdown."""
    lines = [
        "# What tfmlm says to mistakes",
        "",
        "Every mistake below ends in exit code 2 and one line on the error stream that says what was",
        "received and what to do. Nothing half-written stays behind. `--debug` shows the traceback as well.",
        "The page is made from the cases that are tested:",
        "`python -m tests.commands.bad_input > docs/bad-input.md`.",
    ]
    for area, cases in TABLE.items():
        lines += ["", f"## {area}", "", "| The mistake | The line holds |", "| --- | --- |"]
        lines += [f"| {case.mistake} | `{case.says.strip()}` |" for case in cases]
    return "\n".join(lines) + "\n"
