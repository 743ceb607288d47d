"""What `make mutation` takes for granted: that the equivalent mutants are of the code as it is, and why."""

import ast
import tomllib

import pytest

from tests.folders import CHECKOUT

ENTRIES = tomllib.loads((CHECKOUT / "tests/mutation/equivalent.toml").read_text(encoding="utf-8"))["mutants"]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["place"])
def test_an_equivalent_mutant_is_one_of_a_line_that_exists(entry: dict) -> None:
    module, name = entry["place"].split(".")
    (path,) = (CHECKOUT / "tfmlm").glob(f"*/{module}.py")
    definitions = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    (node,) = (node for node in definitions if getattr(node, "name", None) == name)
    lines = path.read_text(encoding="utf-8").splitlines()[node.lineno - 1 : node.end_lineno]
    assert entry["before"] in [line.strip() for line in lines]
    assert entry["before"] not in entry["after"]
    assert entry["why"]
