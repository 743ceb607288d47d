"""Imports run one way, and a command line that only parses is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.folders import CHECKOUT

PACKAGE = CHECKOUT / "tfmlm"
LAYERS = (
    "base",
    "data",
    "training",
    "graph_tokenizer",
    "export",
    "inference",
    "hub",
    "report_page",
    "client",
    "preview",
    "run",
    "cli",
)
"""Each may import those before it, and itself."""

ELSEWHERE = {"run": "run", "api": "run", "__main__": "cli"}
"""Modules beside the folders that are not the base, which has `config` too."""

ALONE = {
    "graph_tokenizer": {"base", "graph_tokenizer"},
    "report_page": {"base", "report_page"},
    "client": {"base", "client"},
    "preview": {"base", "client", "preview"},
}
"""Layers that need less than those before them, and what they may import."""


def layer_of(module: str) -> str:
    """Layer of `tfmlm.x` or `tfmlm.x.y`."""
    part = [*module.split("."), "__init__"][1]
    return part if part in LAYERS else ELSEWHERE.get(part, "base")


def imported_modules(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return {name for name in names if name.split(".")[0] == "tfmlm"}


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    # The package's own names are those of `api`, which it loads when they are used.
    layer = "run" if module == "tfmlm.__init__" else layer_of(module)
    allowed = ALONE.get(layer, set(LAYERS[: LAYERS.index(layer) + 1]))
    for imported in imported_modules(path):
        assert layer_of(imported) in allowed, f"{module} imports {imported}"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom tfmlm.cli.main import make_parser\nmake_parser().format_help()\n"
        "heavy = {'tensorflow', 'transformers', 'datasets', 'numpy', 'omegaconf', 'shtab', 'packaging'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
