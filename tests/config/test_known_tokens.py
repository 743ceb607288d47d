"""A token of this machine ends up in no file, and is never repeated."""

from pathlib import Path

import pytest
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st

from tests.config.test_load import KEYS
from tests.fuzzing import fuzzed
from tests.tiny_run import Command
from tfmlm.config.load import load_config
from tfmlm.errors import UserError

TOKEN = "hf_QwErTyUiOpAsDfGh"


@fuzzed(num_examples=60, deadline=10_000)
@given(
    key=st.sampled_from([*KEYS, "model.config.a.b", "data.train_files[0]"]),
    around=st.sampled_from(["{}", "a {} b", "https://x/?token={}"]),
    variable=st.sampled_from(["HF_TOKEN", "TFMLM_SERVING_TOKEN", "WANDB_API_KEY", "MLFLOW_TRACKING_TOKEN"]),
    is_override=st.booleans(),
)
def test_a_known_token_is_refused_wherever_it_stands(
    key: str, around: str, variable: str, is_override: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("token") / "config.yaml"
    value = around.format(TOKEN)
    parts = key.replace("[0]", ".0").split(".")
    nested = "model: {name_or_path: m}\n"
    if not is_override:
        nested = "{" + ": {".join(parts) + f": '{value}'" + "}" * len(parts) + "\n"
    path.write_text(nested)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(variable, TOKEN)
        with pytest.raises(UserError) as refusal:
            load_config(path, [f"{key}={value}"] if is_override else [])
    assert "token of this machine" in str(refusal.value)
    assert parts[1] in str(refusal.value)
    assert TOKEN not in str(refusal.value)


@pytest.mark.parametrize("place", ["HF_TOKEN_PATH", "HF_STORED_TOKENS_PATH"])
def test_the_token_of_the_login_is_known(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = tmp_path / "token"
    stored.write_text(f"[mine]\nhf_token = {TOKEN}\n" if "STORED" in place else f"{TOKEN}\n")
    monkeypatch.setattr(constants, place, str(stored))
    (tmp_path / "config.yaml").write_text(f"model: {{name_or_path: {TOKEN}}}\n")
    with pytest.raises(UserError, match=r"config key model\.name_or_path holds a token of this machine"):
        load_config(tmp_path / "config.yaml")


def test_a_short_token_is_no_part_of_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFMLM_SERVING_TOKEN", "a")
    (tmp_path / "config.yaml").write_text("model: {name_or_path: bart}\n")
    load_config(tmp_path / "config.yaml")
    with pytest.raises(UserError, match="config key model"):
        load_config(tmp_path / "config.yaml", ["model.name_or_path=a"])


def test_no_file_of_a_run_holds_the_token(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HF_TOKEN", "TFMLM_SERVING_TOKEN"):
        monkeypatch.setenv(variable, TOKEN)
    command("train")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]
