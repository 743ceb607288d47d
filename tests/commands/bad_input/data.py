"""Mistakes in files of texts and in shards."""

import gzip
import json
from pathlib import Path

from tests.commands.bad_input.arrange import write
from tests.commands.bad_input.case import CONFIG_PATH, TRAIN, Arrange, Case


def write_manifest(**values: object) -> Arrange:
    shard = {"name": "a.tfrecord", "num_blocks": 1, "num_tokens": 1, "num_bytes": 0, "sha256": ""}
    fields = {
        "format": 1,
        "block_size": 32,
        "with_words": False,
        "tokenizer_fingerprint": "",
        "settings": {},
        "splits": {"train": [shard | values], "validation": [shard]},
        "bad_rows": [],
    }

    def arrange(folder: Path) -> None:
        write("shards/a.tfrecord", "")(folder)
        write(
            "shards/manifest.json",
            json.dumps(fields | {key: value for key, value in values.items() if key in fields}),
        )(folder)

    return arrange


JSON = f"{TRAIN} data.source=json data.train_files=[{{folder}}/rows.jsonl]"
CSV = f"{TRAIN} data.source=csv data.train_files=[{{folder}}/rows.csv]"
SHARDS = f"{TRAIN} data.source={{folder}}/shards"

DATA = [
    Case("no files", f"{TRAIN} data.train_files=[]", "needs data.train_files; it is empty"),
    Case(
        "a split of files",
        f"{TRAIN} data.validation_split=test",
        "validation_split 'test' is for Hub datasets",
    ),
    Case(
        "a file that is not there",
        f"{TRAIN} data.train_files=[{{folder}}/none.txt]",
        "no text file matches",
    ),
    Case("an empty file", TRAIN, "texts.txt", write("texts.txt", "")),
    Case("only blanks", TRAIN, "holds no text", write("texts.txt", "\n  \n")),
    Case("no UTF-8", TRAIN, "not UTF-8", write("texts.txt", b"good\nbad \xff\n" * 20)),
    Case("a column that is not there", JSON, "'text' does not exist", write("rows.jsonl", '{"a": "b"}\n')),
    Case(
        "a column of numbers",
        f"{JSON} data.text_column=a",
        "'a' holds int64, not text",
        write("rows.jsonl", '{"a": 1, "b": "c"}\n'),
    ),
    Case("broken JSON", JSON, "rows.jsonl", write("rows.jsonl", '{"text": "a"}\n{"text": \n')),
    Case("broken CSV", CSV, "rows.csv", write("rows.csv", 'text\na\n"b\n')),
    Case("gzip cut short", TRAIN, "texts.txt", write("texts.txt", gzip.compress(b"a text\n" * 9999)[:40])),
    Case("no Parquet", f"{TRAIN} data.source=parquet", "texts.txt"),
    Case("shards of no manifest", SHARDS, "holds no manifest.json", write("shards/a.tfrecord", "")),
    Case("a manifest that is no JSON", SHARDS, "cannot be read", write("shards/manifest.json", "{")),
    Case(
        "a shard outside of its folder",
        SHARDS,
        "is damaged (a shard's name is a path)",
        write_manifest(name="../texts.txt"),
    ),
    Case(
        "a shard by an absolute path",
        SHARDS,
        "is damaged (a shard's name is a path)",
        write_manifest(name="/etc/passwd"),
    ),
    Case("a shard cut short", SHARDS, "is corrupt: it has 0 bytes", write_manifest(num_bytes=9)),
    Case(
        "blocks of another length",
        f"{SHARDS} data.block_size=16",
        "set data.block_size=32",
        write_manifest(),
    ),
    Case("no blocks", SHARDS, "is damaged", write_manifest(num_blocks=0)),
    Case("no tokenizer beside shards", SHARDS, "tokenizer' cannot be read", write_manifest()),
    Case("shards of nothing", f"prepare {CONFIG_PATH} --blocks-per-shard 0", "--blocks-per-shard is 0"),
    Case(
        "flags of Beam without Beam",
        f"prepare {CONFIG_PATH} --region=x",
        "flags of Apache Beam need --runner",
    ),
    Case("shards among other files", f"prepare {CONFIG_PATH} --output {{folder}}", "holds other files"),
    Case(
        "shards below a file in a folder",
        f"prepare {CONFIG_PATH} --output {{folder}}/texts.txt/x",
        "texts.txt/x' cannot be written",
    ),
    Case("half a letter in a row", JSON, "rows.jsonl", write("rows.jsonl", '{"text": "\\ud800"}\n' * 9)),
    Case(
        "half a letter in every row, skipped",
        f"{JSON} data.on_bad_rows=skip",
        "not UTF-8 at character 1",
        write("rows.jsonl", '{"text": "\\ud800"}\n' * 9),
    ),
    Case("shards below a file", f"prepare {CONFIG_PATH} --output {{folder}}/texts.txt", "texts.txt"),
]
