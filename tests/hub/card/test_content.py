"""The model card says what the run did and no more, each time the same."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, ModelCardData

from tests.hub.pushed_model import TEXT, read_card, read_result, rewrite
from tests.hub.server import TOKEN
from tfmlm.config import Config, DataConfig, HubConfig, ModelConfig
from tfmlm.errors import UserError
from tfmlm.hub.card import choose_text
from tfmlm.run import run

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
        f"| tokens seen | {result.tokens:,} |",
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
    assert settings.keys() == (expected - {"distribute.tpu", "train.callbacks"}) | {"run.seed"}
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
