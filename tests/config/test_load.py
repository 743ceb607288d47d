"""Whatever a file or an override holds: it is a configuration, or one line says what is wrong with it."""

import unicodedata
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from tests.fuzzing import fuzzed
from tfmlm.config import Config, RunConfig
from tfmlm.config.load import dump_config, load_config
from tfmlm.errors import UserError, in_one_line

KEYS = [f"{section.name}.{key.name}" for section in fields(Config) for key in fields(section.default_factory)]

odd_values = st.sampled_from(
    [
        *(
            "0x_",
            "0b_",
            "9" * 5000,
            "1e400",
            "-.inf",
            ".nan",
            "2020-13-45",
            "1:99",
            "null",
            "yes",
            "''",
            "???",
        ),
        *(
            "${run.name}",
            "${",
            "${a.b}",
            "${oc.env:NONE}",
            "\\${x}",
            "${model.config}",
            "\x1b[2J",
            "\0",
            "\ud800",
        ),
        *(
            "!!int x",
            "!!float x",
            "!!bool x",
            "!!timestamp x",
            "!!binary a",
            "!!set {a}",
            "!x y",
            "!!omap [a]",
        ),
        *(
            "!!python/name:os.system",
            "&a [*a]",
            "&a {b: *a}",
            "<<: 1",
            "? a",
            "--- a",
            "[",
            "{",
            "- a",
            "*a",
            "@",
        ),
        *("[" * 3000, "{a: " * 3000, "9223372036854775808", "[a, [b]]", "{a: {b: c}}", '"\\0"', '"\\ud800"'),
    ]
)
values = (
    odd_values | st.text(max_size=8) | st.integers().map(str) | st.floats().map(str) | st.booleans().map(str)
)
keys = (
    st.sampled_from(KEYS)
    | st.text(max_size=6)
    | st.sampled_from([*".:=[]", "run", "data.train_files[0]", "a..b"])
)
overrides = st.lists(st.builds("{}={}".format, keys, values) | values, max_size=3)
lines = st.builds(
    "{}: {}".format, st.sampled_from(["run", "data", "model.config", "x", "1", "null", "~"]), values
)
sections = st.builds(
    lambda key, value: f"{key.partition('.')[0]}: {{{key.partition('.')[2]}: {value}}}",
    st.sampled_from(KEYS),
    values,
)
documents = (
    st.binary(max_size=60)
    | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.lists(lines | sections, max_size=4).map(
        lambda parts: "\n".join(parts).encode("utf-8", "surrogatepass")
    )
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "config.yaml"


def assert_loads_or_says_why(load: Callable[[], Config], path: Path) -> None:
    try:
        config = load()
    except UserError as error:
        line = in_one_line(error)
        assert line
        assert all(letter.isprintable() or unicodedata.category(letter) == "Zs" for letter in line)
    else:
        path.write_text(dump_config(config), encoding="utf-8")
        assert load_config(path) == config


@fuzzed(num_examples=100, deadline=60_000)
@given(document=documents)
def test_any_file(document: bytes, path: Path) -> None:
    path.write_bytes(document)
    assert_loads_or_says_why(lambda: load_config(path, ["model.name_or_path=m"]), path)


@fuzzed(num_examples=100, deadline=60_000)
@given(items=overrides)
@example(items=["[=1"])
@example(items=["data.train_files=[]", "data.train_files.0=a"])
def test_any_overrides(items: list[str], path: Path) -> None:
    path.write_text("data: {source: text, train_files: [a.txt]}\nmodel: {name_or_path: m}\n")
    assert_loads_or_says_why(lambda: load_config(path, items), path)


@fuzzed(num_examples=100, deadline=60_000)
@given(texts=st.lists(st.text("${}\\a:\n #é", max_size=12), max_size=3))
def test_any_sample_text_comes_back(texts: list[str], path: Path) -> None:
    model = replace(Config().model, name_or_path="m")
    config = Config(run=RunConfig(sample_texts=texts), model=model)
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path) == config


SECRET = "hf_that_no_file_may_hold"


@fuzzed(num_examples=100, deadline=5000)
@given(
    key=st.sampled_from([*KEYS, "model.config.a.b", "data.train_files[0]", "run", "model.config"]),
    before=st.sampled_from(["", "a ", "\\\\", "{", "$"]),
    expression=st.sampled_from(["oc.env:TFMLM_TEST_SECRET", "run.name", "oc.decode:1", "oc.create:[1]"]),
    is_override=st.booleans(),
)
def test_an_interpolation_is_refused_wherever_it_stands(
    key: str, before: str, expression: str, is_override: bool, path: Path
) -> None:
    value = f"'{before}${{{expression}}}'"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFMLM_TEST_SECRET", SECRET)
        path.write_text("model: {name_or_path: m}\n")
        if not is_override:
            path.write_text(OmegaConf.to_yaml(OmegaConf.from_dotlist([f"{key}={value}"])))
        with pytest.raises(UserError) as refusal:
            load_config(path, [f"{key}={value}"] if is_override else [])
    assert SECRET not in str(refusal.value)
    assert key.partition("[")[0] in str(refusal.value)
