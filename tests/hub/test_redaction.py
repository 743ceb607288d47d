"""What is published of a configuration."""

from dataclasses import asdict
from pathlib import Path

from tfmlm.config import (
    Config,
    DataConfig,
    DistributeConfig,
    ExportConfig,
    HubConfig,
    ModelConfig,
    RunConfig,
    TokenizerConfig,
)
from tfmlm.config.load import dump_config, load_config
from tfmlm.hub.redaction import redact_config

SECRET = "/home/secret"


def test_no_local_path_is_left_and_all_else_stays(tmp_path: Path) -> None:
    config = Config(
        run=RunConfig(name="mine", output_dir=f"{SECRET}/runs/mine", sample_texts=["/etc/[MASK] is a path."]),
        data=DataConfig(
            source="json", train_files=[f"{SECRET}/a.jsonl", "b/*.jsonl"], text_column="answers.text"
        ),
        tokenizer=TokenizerConfig(name_or_path=f"{SECRET}/tokenizer"),
        model=ModelConfig(config={"model_type": "bert", "hidden_size": 8, "origin": f"{SECRET}/origin"}),
        distribute=DistributeConfig(tpu="grpc://10.0.0.2:8470"),
        export=ExportConfig(dir=f"{SECRET}/exports", name="mine"),
        hub=HubConfig(repo_id="me/mine"),
    )
    file = tmp_path / "run_config.yaml"
    file.write_text(dump_config(redact_config(config)))
    published = load_config(file)

    assert "secret" not in file.read_text()
    assert "10.0.0.2" not in file.read_text()
    assert published.run == RunConfig(name="mine", output_dir="mine", sample_texts=["/etc/[MASK] is a path."])
    assert published.data.train_files == ["a.jsonl", "*.jsonl"]
    assert published.tokenizer.name_or_path == "tokenizer"
    assert published.model.config == {"model_type": "bert", "hidden_size": 8, "origin": "origin"}
    assert published.export.dir == "exports"
    for section in ("masking", "optimizer", "train", "hub"):
        assert asdict(getattr(published, section)) == asdict(getattr(config, section))


def test_what_the_hub_or_a_package_gives_keeps_its_name() -> None:
    config = Config(
        data=DataConfig(source="wikitext", config_name="wikitext-103-raw-v1"),
        tokenizer=TokenizerConfig(name_or_path="package:wordpieces"),
        model=ModelConfig(name_or_path="me/mine"),
    )
    assert redact_config(config) == config


def test_of_a_url_the_name_of_its_file_is_left_and_no_secret() -> None:
    files = [
        "https://me:secret@host/secret/a.txt?token=secret",
        "s3://secret/part-?.txt",
        "https://host/?x=secret/secret",
    ]
    config = Config(data=DataConfig(source="text", train_files=files, validation_files=files[:1]))
    published = redact_config(config).data
    assert published.train_files == ["a.txt?token=…", "part-?.txt", "?x=…"]
    assert published.validation_files == ["a.txt?token=…"]
