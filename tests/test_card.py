"""The model card says what the run did and no more, and what it tells to type works."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData

from tests.hub_client import environment_for, run_tfmlm
from tests.hub_server import TOKEN, HubServer, running_hub
from tests.serving import run_server
from tests.tiny import SENTENCES
from tests.tiny_run import make_config
from tfmlm.config import Config, DataConfig, ExportConfig, HubConfig, ModelConfig, RunConfig
from tfmlm.errors import UserError
from tfmlm.export.predict import load_predictor
from tfmlm.hub.card import Circumstances, write_card
from tfmlm.hub.card_usage import choose_text
from tfmlm.run import run
from tfmlm.run_folder import Result, RunFolder

ROOT = Path(__file__).parent.parent
PYTORCH = os.environ.get("TFMLM_PYTORCH_PYTHON", "")
TEXT = "Return the [MASK] size."
CIRCUMSTANCES = Circumstances("1 CPU", ["the head is new"])


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("card")
    (folder / "secret-place").mkdir()
    text_file = folder / "secret-place" / "docs.txt"
    text_file.write_text("\n".join(SENTENCES * 4), encoding="utf-8")
    tiny = make_config(folder, text_file)
    return replace(
        tiny,
        run=RunConfig(name="tiny", output_dir=str(folder / "run"), sample_texts=[TEXT]),
        export=ExportConfig(dir=str(folder / "secret-place" / "exports"), name="tiny-export"),
        hub=HubConfig(license="apache-2.0", language=["en"]),
    )


@pytest.fixture(scope="module")
def run_dir(config: Config) -> Path:
    """A finished run, whose card nobody has changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", TOKEN)
        run(config)
    return config.run_dir


@pytest.fixture
def copy_dir(run_dir: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run_dir, tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoints"))


def read_card(run_dir: Path) -> str:
    return (run_dir / "model" / "README.md").read_text(encoding="utf-8")


def read_result(run_dir: Path) -> Result:
    result = RunFolder(run_dir).read_result()
    assert result
    return result


def rewrite(copy_dir: Path, config: Config, **changes: Any) -> str:
    """The card of a run that differs in some of its configuration or result."""
    result = replace(read_result(copy_dir), **changes)
    write_card(config, RunFolder(copy_dir), result, CIRCUMSTANCES)
    return read_card(copy_dir)


def extract(card: str, language: str, heading: str) -> str:
    """All code in that language below a heading."""
    section = card.partition(f"### {heading}\n")[2].partition("\n#")[0]
    return "\n".join(re.findall(rf"```{language}\n(.*?)\n```", section, re.DOTALL))


# === What it says ===


def test_the_metadata_is_the_hubs(run_dir: Path) -> None:
    data = ModelCard.load(run_dir / "model" / "README.md").data
    assert isinstance(data, ModelCardData)
    result = read_result(run_dir)
    fields_read = data.to_dict()
    (evaluated,) = fields_read.pop("model-index")
    assert fields_read == {
        "license": "apache-2.0",
        "language": ["en"],
        "library_name": "transformers",
        "pipeline_tag": "fill-mask",
        "tags": ["fill-mask", "tensorflow", "tfmlm"],
        "metrics": ["perplexity", "accuracy"],
        "widget": [{"text": TEXT}],
    }
    assert evaluated["name"] == "tiny"
    assert data.eval_results
    found = [(each.metric_type, each.metric_value) for each in data.eval_results]
    assert found == [
        ("perplexity", pytest.approx(result.perplexity, rel=1e-5)),
        ("accuracy", pytest.approx(result.eval_top_1, rel=1e-5)),
        ("accuracy", pytest.approx(result.eval_top_5, rel=1e-5)),
    ]
    assert ModelCardData(**data.to_dict()).to_yaml() == data.to_yaml()


def test_it_says_what_came_out_and_on_what(run_dir: Path) -> None:
    card, result = read_card(run_dir), read_result(run_dir)
    for expected in (
        f"was {result.initial_perplexity:,.2f} before training",
        f"**{result.perplexity:,.2f}**",
        f"{result.eval_top_1:.1%}",
        "| steps | 8 of 4 blocks, 4 at once on each device |",
        f"| tokens seen | {result.tokens:,}, padding included |",
        f"{result.step_seconds_median:.3f} s a step",
        "| hardware | 1 CPU, ",
        "tensorflow 2.20",
        "Python 3.11",
        "Files of the type text: `docs.txt`.",
        "80% of these were masked",
        "- The masked-LM head is new",
    ):
        assert expected in card


def test_the_training_curve_is_its_picture(run_dir: Path) -> None:
    assert "](training.png)" in read_card(run_dir)
    assert (run_dir / "model" / "training.png").read_bytes() == (run_dir / "plots" / "loss.png").read_bytes()


def test_every_setting_of_the_training_is_in_it(run_dir: Path) -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| `(.*)` \|$", read_card(run_dir), re.MULTILINE)
    settings = {key: json.loads(value) for key, value in rows}
    expected = {
        f"{section.name}.{key.name}"
        for section in fields(Config)
        if section.name not in ("run", "export", "hub")
        for key in fields(section.default_factory)
    }
    assert settings.keys() == (expected - {"distribute.tpu"}) | {"run.seed"}
    assert settings["train.max_steps"] == 8
    assert settings["data.train_files"] == ["docs.txt"]
    assert settings["model.config"]["model_type"] == "bert"


def test_nothing_of_the_machine_is_in_it(run_dir: Path) -> None:
    card = read_card(run_dir)
    for private in (str(run_dir.parent), "secret-place", TOKEN, str(Path.home()), str(Path.cwd())):
        assert private not in card


def test_paths_lose_their_folders(copy_dir: Path, config: Config, tmp_path: Path) -> None:
    (tmp_path / "hidden" / "base").mkdir(parents=True)
    files = ["hidden/a|b.txt", *(f"~/hidden/{number}.txt" for number in range(5))]
    changed = replace(
        config,
        data=DataConfig(source="text", train_files=files),
        model=ModelConfig(
            name_or_path=str(tmp_path / "hidden" / "base"), config={"vocab_file": "gs://hidden/vocab.txt"}
        ),
        distribute=replace(config.distribute, tpu="grpc://hidden:8470"),
    )
    card = rewrite(copy_dir, changed, bad_rows=3, notes=["hidden/a.txt row 3: it is broken"])
    assert "hidden/" not in card
    assert "hidden:" not in card
    assert "trained further from `base`" in card
    assert "`4.txt`" not in card
    assert "and 1 more." in card
    assert "3 rows could not be read" in card
    assert r'`["a\|b.txt", "0.txt",' in card
    assert "base_model" not in ModelCard(card).data.to_dict()
    shards = replace(changed, data=DataConfig(source="gs://hidden/shards"))
    card = rewrite(copy_dir, shards)
    assert "Tokenized text in `shards`." in card
    assert "hidden/" not in card
    assert "datasets" not in ModelCard(card).data.to_dict()


def test_what_came_from_the_hub_is_linked(copy_dir: Path, config: Config) -> None:
    changed = replace(
        config,
        data=DataConfig(source="dany0407/eli5_category", split="train[:5000]", text_column="answers.text"),
        model=ModelConfig(name_or_path="distilbert/distilroberta-base"),
        hub=HubConfig(),
    )
    card = rewrite(copy_dir, changed)
    data = ModelCard(card).data.to_dict()
    assert data["base_model"] == "distilbert/distilroberta-base"
    assert data["datasets"] == "dany0407/eli5_category"
    assert not {"license", "language"} & data.keys()
    assert data["model-index"][0]["results"][0]["dataset"]["type"] == "dany0407/eli5_category"
    assert "(https://huggingface.co/distilbert/distilroberta-base)" in card
    assert "(https://huggingface.co/datasets/dany0407/eli5_category), split `train[:5000]`" in card


def test_a_package_is_named_and_is_no_hub_id(copy_dir: Path, config: Config) -> None:
    card = rewrite(copy_dir, replace(config, model=ModelConfig(name_or_path="package:some_package/model")))
    assert "trained further from `package:some_package/model`" in card
    assert "base_model" not in ModelCard(card).data.to_dict()


def test_a_perplexity_that_is_infinite_is_no_metric(copy_dir: Path, config: Config) -> None:
    data = ModelCard(rewrite(copy_dir, config, perplexity=float("inf"))).data
    assert isinstance(data, ModelCardData)
    assert data.eval_results
    assert {each.metric_type for each in data.eval_results} == {"accuracy"}


def test_the_example_is_one_line_with_one_mask() -> None:
    texts = ["no mask", "<mask> <mask>", "a\n<mask>", "a ```<mask>```", "It's <mask>.", "<mask>"]
    assert choose_text(texts, "<mask>") == "It's <mask>."
    assert choose_text([], "[MASK]") == "This is a [MASK]."


# === When it is written ===


def test_the_same_run_gives_the_same_card(copy_dir: Path, config: Config) -> None:
    first = rewrite(copy_dir, config)
    assert rewrite(copy_dir, config) == first
    assert not [path.name for path in (copy_dir / "model").iterdir() if path.name.startswith(".")]


def test_a_finished_run_keeps_what_was_written_into_its_card(copy_dir: Path, config: Config) -> None:
    (copy_dir / "model" / "README.md").write_text("mine")
    run(replace(config, run=replace(config.run, output_dir=str(copy_dir))))
    assert read_card(copy_dir) == "mine"


def test_a_card_that_cannot_be_written_is_one_line(copy_dir: Path, config: Config) -> None:
    (copy_dir / "model" / "README.md").unlink()
    (copy_dir / "model" / "README.md").mkdir()
    with pytest.raises(UserError, match=r"^model card in '.*/model' cannot be written: .*directory"):
        rewrite(copy_dir, config)


# === What it tells to type ===


def run_python(python: str, code: str, folder: Path, **environment: str) -> list[str]:
    done = subprocess.run(
        [python, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        # Nothing of the tests': only what the code itself sets.
        env={
            name: value
            for name, value in (os.environ | environment).items()
            if name not in ("TF_USE_LEGACY_KERAS", "PYTHONPATH")
        },
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def expected_lines(run_dir: Path) -> list[tuple[float, str]]:
    (masks,) = load_predictor(str(run_dir / "model"), top_k=5)([TEXT])
    return [(each["score"], each["token_str"]) for each in masks[0]]


def assert_same_words(lines: list[str], run_dir: Path) -> None:
    expected = expected_lines(run_dir)
    assert len(lines) == len(expected) == 5
    for line, (score, word) in zip(lines, expected, strict=True):
        shown, _, found = line.partition(" ")
        assert float(shown.rstrip("%")) == pytest.approx(100 * score, abs=0.11)
        assert found.strip() == word.strip()


@pytest.mark.slow
def test_the_tensorflow_code_runs(run_dir: Path) -> None:
    code = extract(read_card(run_dir), "python", "TensorFlow")
    assert_same_words(run_python(sys.executable, code, run_dir), run_dir)


@pytest.mark.slow
@pytest.mark.skipif(not PYTORCH, reason="TFMLM_PYTORCH_PYTHON names no Python with torch and transformers 5")
def test_the_pytorch_code_runs(run_dir: Path) -> None:
    code = extract(read_card(run_dir), "python", "PyTorch")
    assert_same_words(run_python(PYTORCH, code, run_dir), run_dir)


def list_commands(card: str) -> dict[str, list[str]]:
    """The commands for serving by their first words."""
    commands = map(shlex.split, extract(card, "sh", "TensorFlow Serving").splitlines())
    return {" ".join(words[:2]) if words[0] == "tfmlm" else words[0]: words for words in commands}


def run_command(words: list[str], folder: Path, port: str = "8501") -> str:
    words = [word.replace("localhost:8501", f"127.0.0.1:{port}") for word in words]
    if words[0] == "tfmlm":
        words = [sys.executable, "-m", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, check=False, timeout=240, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_commands_for_serving_run(copy_dir: Path) -> None:
    commands = list_commands(read_card(copy_dir))
    assert list(commands) == ["tfmlm export", "docker", "tfmlm query", "curl"]
    assert run_command(commands["tfmlm export"], copy_dir).strip() == "saved_models/tiny-export/1"
    _, best = expected_lines(copy_dir)[0]
    with run_server(copy_dir / "saved_models" / "tiny-export") as server:
        port = server.rest.rpartition(":")[2]
        words = run_command(commands["tfmlm query"], copy_dir, port)
        assert words.startswith(f"{TEXT}\n  {best.strip()} ")
        answer = json.loads(run_command(commands["curl"], copy_dir, port))
    assert answer["predictions"][0]["tokens"][0][0].strip() == best.strip()


@pytest.mark.slow
def test_without_a_text_signature_the_text_is_tokenized_here(copy_dir: Path, config: Config) -> None:
    card = rewrite(copy_dir, config, saved_model_dir=None)
    commands = list_commands(card)
    assert list(commands) == ["tfmlm export", "docker", "tfmlm query"]
    run_command([*commands["tfmlm export"], "export.text_signature='off'"], copy_dir)
    with run_server(copy_dir / "saved_models" / "tiny-export") as server:
        words = run_command(commands["tfmlm query"], copy_dir, server.rest.rpartition(":")[2])
    _, best = expected_lines(copy_dir)[0]
    assert words.startswith(f"{TEXT}\n  {best.strip()} ")


def test_docker_gets_what_compose_gives(run_dir: Path) -> None:
    (service,) = yaml.safe_load((ROOT / "configs/serving/compose.yaml").read_text())["services"].values()
    words = list_commands(read_card(run_dir))["docker"]
    options = dict(zip(words[3:-1:2], words[4:-1:2], strict=True))
    assert words[:3] == ["docker", "run", "--rm"]
    assert words[-1] == service["image"]
    assert options["-p"] in service["ports"]
    assert options["-e"] == "MODEL_NAME=tiny-export"
    assert options["-v"] == "$PWD/saved_models/tiny-export:/models/tiny-export:ro"
    (models,) = (volume for volume in service["volumes"] if "saved_models" in volume)
    assert models == "../../saved_models:/models:ro"


# === On the Hub ===


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with running_hub() as server:
        yield server


@pytest.mark.slow
def test_a_pushed_card_names_its_repository_and_works(
    hub: HubServer, copy_dir: Path, config: Config, tmp_path: Path
) -> None:
    pushed = replace(config.hub, repo_id="me/mine", revision="trained")
    card = rewrite(copy_dir, replace(config, hub=pushed))
    done = run_tfmlm(hub, "push", copy_dir, "hub.repo_id=me/mine", "hub.revision=trained")
    assert done.returncode == 0, done.stderr
    files = hub.repositories["me/mine"].files("trained")
    assert files["README.md"].decode() == card
    assert files["training.png"] == (copy_dir / "plots" / "loss.png").read_bytes()
    assert hub.count("^POST /api/validate-yaml")

    environment = environment_for(hub)
    code = extract(card, "python", "TensorFlow")
    assert '"me/mine", revision="trained"' in code
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert_same_words(run_python(sys.executable, code, elsewhere, **environment), copy_dir)
    download, *_ = extract(card, "sh", "TensorFlow Serving").splitlines()
    program, *arguments = shlex.split(download)
    subprocess.run(
        [Path(sys.executable).parent / program, *arguments],
        cwd=elsewhere,
        env=environment,
        check=True,
        capture_output=True,
        timeout=240,
    )
    assert (elsewhere / "model" / "README.md").read_text(encoding="utf-8") == card
