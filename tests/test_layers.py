"""Imports run one way, and a command line that only parses is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import CHECKOUT

PACKAGE = CHECKOUT / "tfmlm"
LAYERS = ("base", "data", "training", "export", "hub", "serving", "commands")
"""Each may import those before it, and itself."""

BESIDE = {"serving": {"base", "serving"}}
"""A layer that needs less than those before it, and what it may import."""

TOP_LEVEL = {
    "__init__": "base",
    "candidate": "base",
    "config": "base",
    "config_checks": "base",
    "config_keys": "base",
    "config_loading": "base",
    "errors": "base",
    "export_layout": "base",
    "full_disk": "base",
    "locations": "base",
    "quiet": "base",
    "perplexity": "base",
    "run_folder": "base",
    "run_lock": "base",
    "signals": "base",
    "texts": "base",
    "whole_files": "base",
    "outcome": "commands",
    "run": "commands",
    "report": "commands",
    "report_page": "commands",
    "samples": "commands",
    "completion": "commands",
    "doctor": "commands",
    "cli": "commands",
    "__main__": "commands",
}


def layer_of(module: str) -> str:
    """Layer of `tfmlm.x` or `tfmlm.x.y`."""
    part = [*module.split("."), "__init__"][1]
    return part if part in LAYERS else TOP_LEVEL[part]


def imported_modules(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return {name for name in names if name.split(".")[0] == "tfmlm"}


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    layer = layer_of(module)
    allowed = BESIDE.get(layer, set(LAYERS[: LAYERS.index(layer) + 1]))
    for imported in imported_modules(path):
        assert layer_of(imported) in allowed, f"{module} imports {imported}"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom tfmlm.cli import make_parser\nmake_parser().format_help()\n"
        "print(sorted({'tensorflow', 'transformers', 'datasets', 'numpy', 'omegaconf'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
