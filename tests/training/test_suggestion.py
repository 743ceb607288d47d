"""What is chosen for a text, a model and a machine: allowed, the same each time, overruled by overrides."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tests.data.web import TOKEN, running_site
from tests.tiny import SENTENCES, write_hub_folder
from tfmlm.cli.init import describe_suggestion
from tfmlm.config import Config
from tfmlm.config.load import dump_config, load_config
from tfmlm.run_folder import RunFolder, open_run_folder
from tfmlm.training import suggestion as module
from tfmlm.training.suggestion import Suggestion, _Machine, suggest_config

MACHINES = {
    "small": _Machine("CPU", 1, 1, "float32", 2**20),
    "usual": _Machine("CPU", 1, 1, "bfloat16", 2**32),
    "gpus": _Machine("GPU", 4, 1, "bfloat16", 2**32),
    "workers": _Machine("CPU", 2, 2, "float32", 2**32),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: PreTrainedTokenizerFast) -> str:
    folder = tmp_path_factory.mktemp("suggested") / "model"
    write_hub_folder(folder, byte_tokenizer)
    return str(folder)


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder of text in an empty one, on a usual machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "_look_at_machine", lambda: MACHINES["usual"])
    (tmp_path / "my notes").mkdir()
    (tmp_path / "my notes" / "a.md").write_text("\n\n".join(SENTENCES))
    return "my notes/"


def value_of(suggestion: Suggestion, key: str) -> object:
    section, _, name = key.partition(".")
    return getattr(getattr(suggestion.config, section), name)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    num_texts=st.integers(1, 3000),
    machine=st.sampled_from(sorted(MACHINES)),
    said=st.sets(
        st.sampled_from(
            [
                *("data.block_size=8", "data.sample_by=line", "train.epochs=7", "train.precision=float16"),
                *("train.per_replica_batch_size=3", "optimizer.learning_rate=0.1", "run.name=mine"),
                *("optimizer.warmup_steps=5", "train.evaluate_every_steps=9", "train.max_seconds=9.0"),
                *("train.keep=last", "data.validation_files=[x.md]", "train.evaluate_each_epoch=false"),
            ]
        )
    ),
)
def test_choices_are_allowed_the_same_each_time_and_overruled(
    num_texts: int, machine: str, said: set[str], model: str, notes: str
) -> None:
    """That they are allowed says the configuration's own check, with which each is made."""
    Path(notes, "a.md").write_text("\n\n".join((SENTENCES * 13)[:num_texts]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_look_at_machine", lambda: MACHINES[machine])
        first, second = (suggest_config([notes], model, sorted(said)) for _ in range(2))
    assert first == second
    chosen = {choice.key: choice.value for choice in first.choices}
    assert all(value_of(first, key) == value for key, value in chosen.items())
    assert not chosen.keys() & {each.partition("=")[0] for each in said}
    again = [f"{key}={value}" for key, value in (each.split("=", 1) for each in said)]
    Path("said.yaml").write_text(dump_config(first.config))
    assert load_config("said.yaml", again) == first.config
    train = first.config.train
    replicas = MACHINES[machine].num_replicas
    if not any("batch" in each for each in said):
        assert 1 <= train.per_replica_batch_size * train.gradient_accumulation_steps * replicas <= 32
    has_hour = MACHINES[machine].kind == "CPU" and MACHINES[machine].num_workers == 1
    expected = 9.0 if "train.max_seconds=9.0" in said else 3600.0 if has_hour else None
    assert train.max_seconds == expected
    if "data.block_size=8" not in said:
        assert first.config.data.block_size == 64


def test_more_text_is_seen_less_often_in_larger_steps(model: str, notes: str) -> None:
    epochs, blocks = [], []
    for factor in (1, 10, 100):
        Path(notes, "a.md").write_text("\n\n".join(SENTENCES * factor))
        train = suggest_config([notes], model, []).config.train
        epochs.append(train.epochs)
        blocks.append(train.per_replica_batch_size)
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[0] > epochs[-1] >= 3
    assert blocks == sorted(blocks)
    assert blocks[0] < blocks[-1] == 16


def test_memory_and_replicas_cut_a_step(model: str, notes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(notes, "a.md").write_text("\n\n".join(SENTENCES * 100))
    monkeypatch.setattr(module, "_look_at_machine", lambda: MACHINES["small"])
    train = suggest_config([notes], model, []).config.train
    assert train.per_replica_batch_size * train.gradient_accumulation_steps == 16
    assert train.gradient_accumulation_steps > 1
    monkeypatch.setattr(module, "_look_at_machine", lambda: MACHINES["gpus"])
    assert suggest_config([notes], model, []).config.train.per_replica_batch_size == 8


def begin(config: Config) -> None:
    """As a run does that has saved a step."""
    folder = RunFolder(config.run_dir)
    open_run_folder(folder, config)
    folder.model_dir.mkdir()


def test_a_run_that_has_begun_keeps_its_settings(
    model: str, notes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = suggest_config([notes], model, ["train.max_steps=5"])
    assert not first.has_begun
    assert first.config.run.name == "my-notes"
    begin(first.config)
    Path(notes, "b.md").write_text("\n\n".join(SENTENCES * 50))
    monkeypatch.setattr(module, "_look_at_machine", lambda: MACHINES["gpus"])

    again = suggest_config([f"./{notes}".rstrip("/")], f"{model}/", [])
    assert again.has_begun
    assert again.config == first.config
    open_run_folder(RunFolder(again.config.run_dir), again.config)  # would refuse another run
    kept = {each.key: (each.value, each.now) for each in again.kept}
    assert kept["train.max_steps"] == (5, None)
    assert kept["train.max_seconds"] == (3600.0, None)
    said = describe_suggestion(again)
    assert "runs/my-notes holds this run" in said
    assert "train.max_steps=5, which would be null now" in said

    longer = suggest_config([notes], model, ["train.max_steps=9"])
    assert longer.config == replace(first.config, train=replace(first.config.train, max_steps=9))
    other = suggest_config([notes], model, ["run.name=other"])
    assert not other.has_begun
    assert other.config.train.max_steps is None


def test_the_secret_of_a_url_is_that_of_the_command(model: str, notes: str) -> None:
    with running_site() as site:
        url = (
            site.put("/rows.csv", "\n".join(["body", *(f'"{text}"' for text in SENTENCES)]).encode())
            + f"?{TOKEN}"
        )
        first = suggest_config([url], model, [])
        assert first.config.run.name == "rows"
        assert (first.config.data.source, first.config.data.text_column) == ("csv", "body")
        begin(first.config)
        assert TOKEN not in Path("runs/rows/config.yaml").read_text()
        again = suggest_config([url], model, [])
    assert again.has_begun
    assert again.config == first.config


def test_a_run_of_another_text_is_not_taken_for_this_one(model: str, notes: str) -> None:
    begin(suggest_config([notes], model, []).config)
    Path("c.md").write_text("\n\n".join(SENTENCES))
    other = suggest_config(["c.md"], model, ["run.name=my-notes"])
    assert not other.has_begun


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a.md", "a"),
        ("./über uns.v2.txt", "über-uns"),
        ("data/*.csv", "data"),
        ("https://x.org/some/rows.jsonl?token=0123456789abcdef", "rows"),
    ],
)
def test_a_run_is_named_after_its_text(text: str, name: str) -> None:
    assert module._name_run(text) == name
