"""What users get wrong: each mistake as a case, with the command and a part of what is said to it.

`python -m tests.cli.bad_input` prints the table as `docs/bad-input.md`.
"""

import gzip
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import load_file, save_file
from transformers import PreTrainedTokenizerFast, RobertaTokenizerFast

CONFIG = """
run: {{name: bad, output_dir: {folder}/run}}
data: {{source: text, train_files: [{folder}/texts.txt], block_size: 32}}
model: {{name_or_path: {folder}/model}}
train: {{max_steps: 1, per_replica_batch_size: 2}}
export: {{enabled: false}}
"""
CONFIG_PATH = "{folder}/config.yaml"
TRAIN = f"train {CONFIG_PATH}"

Arrange = Callable[[Path], None]


@dataclass(frozen=True)
class Case:
    """A mistake: what it is, how it comes about in a folder, the command, and what the answer says."""

    mistake: str
    command: str
    says: str
    arrange: Arrange = lambda folder: None

    def make_arguments(self, folder: Path) -> list[str]:
        return [word.replace("\u00a0", " ").format(folder=folder) for word in self.command.split(" ")]


def write(name: str, content: str | bytes) -> Arrange:
    def arrange(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return arrange


def remove(name: str) -> Arrange:
    return lambda folder: (folder / name).unlink()


def change_json(name: str, **values: object) -> Arrange:
    def arrange(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return arrange


def cut(name: str, share: float) -> Arrange:
    def arrange(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(share * len(content))])

    return arrange


def link_out(name: str) -> Arrange:
    """Puts a link in the place of a file, which then lies above its folder."""

    def arrange(folder: Path) -> None:
        path = folder / name
        path.rename(folder / path.name)
        path.symlink_to(folder / path.name)

    return arrange


def then(*arrangements: Arrange) -> Arrange:
    def arrange(folder: Path) -> None:
        for each in arrangements:
            each(folder)

    return arrange


CONFIGURATION = [
    Case("a key that is misspelt", f"{TRAIN} optimizer.learning_rat=1", "optimizer.learning_rat: "),
    Case("a section that is misspelt", f"{TRAIN} optimiser.learning_rate=1", "Did you mean: 'optimizer'"),
    Case(
        "a word for a number",
        f"{TRAIN} data.block_size=long",
        "data.block_size is 'long'; it must be of type int",
    ),
    Case(
        "a value for a list",
        f"{TRAIN} data.train_files=a.txt",
        "data.train_files is 'a.txt'; it must be of type list",
    ),
    Case(
        "a value for a section",
        f"config {CONFIG_PATH}",
        "config section data is 3",
        write("config.yaml", "data: 3"),
    ),
    Case("a list for keys", f"{TRAIN} model.config=[1]", "model.config is [1]; it must be of type dict"),
    Case("an item of a list", f"{TRAIN} data.train_files[0]=a", "overrides do not fit"),
    Case("none of the choices", f"{TRAIN} train.precision=fp8", "it must be one of float32, bfloat16"),
    Case(
        "a rate over 1",
        f"{TRAIN} masking.rate=1.5",
        "masking.rate is 1.5; it must be more than 0 and at most 1",
    ),
    Case("fractions over 1 together", f"{TRAIN} masking.mask_fraction=0.95", "add up to more than 1"),
    Case(
        "a repetition amid packed text",
        f"{TRAIN} data.stride=4",
        "data.stride is 4 and data.pack is true",
    ),
    Case(
        "a text of repetition alone",
        f"{TRAIN} data.pack=false data.stride=32",
        "a part of a text must hold more than it repeats",
    ),
    Case(
        "a repetition of texts that are cut",
        f"{TRAIN} data.pack=false data.stride=4 data.long_texts=cut",
        "so no text has a second part",
    ),
    Case(
        "attention within texts that lie apart",
        f"{TRAIN} data.pack=false data.attend_within_texts=true",
        "without data.pack a block holds one text",
    ),
    Case(
        "an endless number",
        f"{TRAIN} optimizer.learning_rate=.inf",
        "learning_rate is inf; it must be more than 0",
    ),
    Case(
        "a number too large",
        f"{TRAIN} run.seed=99999999999999999999",
        "it must be 0 or more and less than 2**63",
    ),
    Case(
        "an override without =",
        f"{TRAIN} block_size",
        "'block_size' is not of the form section.key=value",
    ),
    Case("an override that is no YAML", f"{TRAIN} run.name=[", "override cannot be read"),
    Case("an override of broken bytes", f"{TRAIN} run.name=\ud800", "override cannot be read"),
    Case("a push to nowhere", f"{TRAIN} hub.push=true", "hub.repo_id is empty"),
    Case("a file that is no YAML", TRAIN, "not valid YAML", write("config.yaml", "run: {name: [1")),
    Case(
        "a value that is not its type",
        TRAIN,
        "has a value that cannot be read",
        write("config.yaml", "run: {seed: 0x_}"),
    ),
    Case(
        "an object of Python in YAML",
        TRAIN,
        "not valid YAML",
        write("config.yaml", "run: !!python/object/apply:os.getpid []"),
    ),
    Case("aliases that grow without end", TRAIN, "not valid YAML", write("config.yaml", "a: &a [x, *a]")),
    Case(
        "a reference to another key",
        TRAIN,
        "config key run.name: '${data.source}' is an interpolation, which is never resolved",
        write("config.yaml", "run: {name: '${data.source}'}"),
    ),
    Case(
        "half a letter in a sample text",
        TRAIN,
        "not valid YAML",
        write("config.yaml", CONFIG.replace("name: bad,", 'name: bad, sample_texts: ["\\ud800"],')),
    ),
    Case(
        "a NUL in a name",
        TRAIN,
        "run.name is 'a\\x00b'; it must be without",
        write("config.yaml", 'run: {name: "a\\0b"}'),
    ),
    Case(
        "a list as the file",
        TRAIN,
        "is a list; it must hold sections",
        write("config.yaml", "- 1\n- 2\n"),
    ),
    Case(
        "lists in lists without end",
        TRAIN,
        "not valid YAML: exceeded maximum nesting depth",
        write("config.yaml", "a: " + "[" * 200_000),
    ),
    Case(
        "a license that the Hub does not know",
        f"{TRAIN} hub.license=Apache2",
        "hub.license is 'Apache2'; did you mean 'apache-2.0'?",
    ),
    Case("a file that is no text", TRAIN, "config.yaml'", write("config.yaml", b"run: \xff\xfe")),
    Case("no file", "config {folder}/none.yaml", "does not exist; the shipped ones are in configs/"),
    Case("a folder as the file", "config {folder}", "cannot be read"),
]


FROM_TEXT = "train --model {folder}/model --text"
INIT = "init --output {folder}/new.yaml --model {folder}/model --text"

WITHOUT_CONFIGURATION = [
    Case("nothing to train", "train", "there is no configuration; give a YAML file, or --text and --model"),
    Case("a text without a model", "train --text {folder}/texts.txt", "--model is not given"),
    Case("a model without a text", "init --model {folder}/model", "--text is not given"),
    Case(
        "a configuration beside a text",
        f"{FROM_TEXT} {{folder}}/texts.txt {CONFIG_PATH}",
        "beside --text there is no configuration",
    ),
    Case("no text there", f"{FROM_TEXT} {{folder}}/nowhere", "is no file, folder or glob of files"),
    Case(
        "a folder without text",
        f"{FROM_TEXT} {{folder}}/pictures",
        "has no file whose ending is known, such as .txt, .md, .jsonl, .csv or .parquet (they are: .png)",
        write("pictures/a.png", "x"),
    ),
    Case(
        "a folder of several kinds",
        f"{INIT} {{folder}}/mixed",
        "has files of several kinds (1 csv, 1 text); choose with data.source=KIND",
        then(write("mixed/a.csv", "text\na\n"), write("mixed/b.txt", "a\n")),
    ),
    Case(
        "several columns of text",
        f"{FROM_TEXT} {{folder}}/rows.csv",
        "has several columns of text (title, body); choose with data.text_column=title, or join",
        write(
            "rows.csv",
            "title,body\n" + "what it is about in a few words,and what is said of it at length\n" * 9,
        ),
    ),
    Case(
        "no column of text",
        f"{FROM_TEXT} {{folder}}/rows.jsonl",
        "has no column of text; the columns are: a, b",
        write("rows.jsonl", '{"a": 1, "b": 2.5}\n'),
    ),
    Case(
        "a column that is not there",
        f"{FROM_TEXT} {{folder}}/rows.jsonl data.text_column=c",
        "data.text_column 'c' does not exist; the columns are: a",
        write("rows.jsonl", '{"a": "some words that are text"}\n'),
    ),
    Case("a text of blanks", f"{FROM_TEXT} {{folder}}/texts.txt", "text", write("texts.txt", "\n \n")),
    Case(
        "a setting that cannot be",
        f"{FROM_TEXT} {{folder}}/texts.txt data.block_size=0",
        "data.block_size is 0; it must be more than 0",
    ),
    Case(
        "a model that is not there",
        "train --model {folder}/nowhere --text {folder}/texts.txt",
        "nowhere' is not a folder; give a model folder or a Hub id",
    ),
    Case(
        "a model without weights",
        f"{FROM_TEXT} {{folder}}/texts.txt",
        "has no weights (model.safetensors or tf_model.h5)",
        remove("model/model.safetensors"),
    ),
    Case(
        "a configuration that is there already",
        f"{INIT} {{folder}}/texts.txt --output {CONFIG_PATH}",
        "config.yaml' is there already and stays",
    ),
    Case(
        "a configuration in no folder",
        f"{INIT} {{folder}}/texts.txt --output {{folder}}/nowhere/a.yaml",
        "a.yaml' cannot be written: No such file or directory",
    ),
]


def give_callback(name: str, arguments: str = "") -> str:
    """The command with a callback; blanks within a word are no-break spaces."""
    more = f",\u00a0arguments:\u00a0{{{{{arguments}}}}}" if arguments else ""
    return f"{TRAIN} train.callbacks=[{{{{class:\u00a0{name}{more}}}}}]"


CALLBACKS = [
    Case(
        "a callback that is no mapping",
        f"{TRAIN} train.callbacks=[wandb.keras.WandbCallback]",
        "train.callbacks[0] is 'wandb.keras.WandbCallback'; it must be a mapping",
    ),
    Case(
        "a key that a callback has not",
        f"{TRAIN} train.callbacks=[{{{{name:\u00a0a.B}}}}]",
        "train.callbacks[0] is {'name': 'a.B'}; it must be {class: IMPORT.PATH, arguments: {NAME: VALUE}}",
    ),
    Case(
        "a path without a module",
        give_callback("Mine"),
        "it must be an import path such as my_module.My",
    ),
    Case(
        "a module that is not there",
        give_callback("no_such.Mine"),
        "train.callbacks 'no_such.Mine' cannot be imported: No module named 'no_such'",
    ),
    Case("a class that is not there", give_callback("json.Mine"), "cannot be imported: module 'json' has no"),
    Case(
        "a class of another kind",
        give_callback("collections.OrderedDict"),
        "is no subclass of tf.keras.callbacks.Callback",
    ),
    Case("a function", give_callback("os.system", "command:\u00a0ls"), "is no subclass of tf.keras"),
    Case(
        "an argument that it does not take",
        give_callback("tests.my_callbacks.Recorder", "file:\u00a0a"),
        "does not take these arguments: missing a required argument: 'path'; it takes (path: ",
    ),
    Case(
        "a password for a tracker",
        give_callback("a.B", "uri:\u00a0'http://me:secret@host/'"),
        "train.callbacks[0].arguments has a URL with a user or password",
    ),
]


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
    Case(
        "a file of a server that does not answer",
        f"{TRAIN} data.train_files=[http://127.0.0.1:9/a.txt?token=secret]",
        "http://127.0.0.1:9/a.txt?token=… cannot be read: Cannot connect",
    ),
    Case(
        "wildcards over HTTP",
        f"{TRAIN} data.train_files=[https://127.0.0.1:9/*.txt]",
        "HTTP lists no files; name each",
    ),
    Case(
        "a file system that there is not",
        f"{TRAIN} data.validation_files=[nothing://a.txt]",
        "Protocol not known: nothing",
    ),
    Case(
        "a password in a file's URL",
        f"{TRAIN} data.train_files=[ftp://me:secret@127.0.0.1/a.txt]",
        "has a URL with a user or password; leave it out",
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
    Case(
        "a row that is too long",
        f"{TRAIN} data.max_text_bytes=99",
        "row 2: it has more than 99 bytes (data.max_text_bytes)",
        write("texts.txt", "a\n" + "b" * 100 + "\n"),
    ),
    Case(
        "an archive for a text",
        f"{TRAIN} data.on_bad_rows=skip",
        "texts.txt is a zip archive; give it a name that ends with .zip",
        write("texts.txt", b"PK\x03\x04" + bytes(30)),
    ),
    Case(
        "Parquet for a text",
        f"{TRAIN} data.on_bad_rows=skip",
        "texts.txt is Parquet; set data.source=parquet",
        write("texts.txt", b"PAR1" + bytes(30)),
    ),
    Case(
        "Arrow for a text",
        f"{TRAIN} data.on_bad_rows=skip",
        "texts.txt is Arrow; set data.source=arrow",
        write("texts.txt", b"ARROW1" + bytes(30)),
    ),
    Case("no Arrow", f"{TRAIN} data.source=arrow", "texts.txt, row 1: "),
    Case(
        "an archive cut short",
        f"{TRAIN} data.train_files=[{{folder}}/a.zip]",
        "a.zip cannot be read: File is not a zip file; fetch it again, or unpack it",
        write("a.zip", b"PK\x03\x04" + bytes(30)),
    ),
    Case(
        "a field of what has none",
        f"{TRAIN} data.field=rows",
        "data.field 'rows' is for data.source json, and it is 'text'",
    ),
    Case(
        "a field that is not there",
        f"{JSON} data.field=rows",
        "row 1: data.field 'rows' cannot be read: there is no such field (the fields are: data)",
        write("rows.jsonl", '{"data": [{"text": "a"}]}'),
    ),
    Case(
        "a saved dataset that leads elsewhere",
        f"{TRAIN} data.source={{folder}}/saved",
        "state.json names '../texts.txt', which is no file in it; save it again",
        then(
            write("saved/state.json", '{"_data_files": [{"filename": "../texts.txt"}]}'),
            write("saved/dataset_info.json", "{}"),
        ),
    ),
    Case(
        "a split that a saved dataset has not",
        f"{TRAIN} data.source={{folder}}/saved",
        "data.split 'train' is no split of",
        write("saved/dataset_dict.json", '{"splits": ["test"]}'),
    ),
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
    Case(
        "packed blocks for texts that lie apart",
        f"{SHARDS} data.pack=false",
        "were made with true; set data.pack=true",
        write_manifest(),
    ),
    Case(
        "blocks without the borders of texts",
        f"{SHARDS} data.attend_within_texts=true",
        "do not say where texts start",
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


def remove_mask_token(folder: Path) -> None:
    tokenizer = RobertaTokenizerFast.from_pretrained(folder / "model")
    bare = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, pad_token=tokenizer.pad_token
    )
    bare.save_pretrained(folder / "bare")


def pickle_weights(folder: Path) -> None:
    (folder / "model/model.safetensors").rename(folder / "model/pytorch_model.bin")


MODEL = f"{TRAIN} tokenizer.name_or_path={{folder}}/tokens"

TOKENIZER = [
    Case(
        "no mask token",
        f"{TRAIN} tokenizer.name_or_path={{folder}}/bare",
        "has no mask_token",
        remove_mask_token,
    ),
    Case(
        "a tokenizer that is a link elsewhere",
        f"{TRAIN} tokenizer.name_or_path={{folder}}/tokens",
        "tokenizer.json is a link out of its folder",
        link_out("tokens/tokenizer.json"),
    ),
    Case("no tokenizer", f"{TRAIN} tokenizer.name_or_path={{folder}}", "holds no tokenizer"),
    Case(
        "the pointer of Git LFS for a tokenizer",
        f"{TRAIN} tokenizer.name_or_path={{folder}}/tokens",
        "tokenizer.json is a pointer of Git LFS",
        write("tokens/tokenizer.json", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
    ),
    Case(
        "a tokenizer.json alone that tells no mask",
        f"{TRAIN} tokenizer.name_or_path={{folder}}/alone",
        "does not tell its mask token and pad token; put its tokenizer_config.json",
        write("alone/tokenizer.json", '{"added_tokens": [], "model": {}}'),
    ),
    Case(
        "a vocabulary of no kind",
        f"{TRAIN} tokenizer.name_or_path={{folder}}/alone",
        "neither tokenizer_config.json nor config.json, one of which must say of what kind",
        write("alone/vocab.txt", "[PAD]"),
    ),
    Case("a file cut short", TRAIN, "holds no tokenizer", cut("model/vocab.json", 0.5)),
    Case("a tokenizer.json that is none", TRAIN, "holds no tokenizer", write("model/tokenizer.json", "[]")),
    Case(
        "a vocabulary of another model",
        f"{TRAIN} tokenizer.name_or_path={{folder}}/tokens model.name_or_path=null "
        "model.config={{model_type:\u00a0bert,vocab_size:\u00a050}}",
        "tokens and the model only 50; use the model's own tokenizer",
    ),
    Case(
        "code of its own",
        TRAIN,
        "which is never run",
        write(
            "model/tokenizer_config.json",
            '{"auto_map": {"AutoTokenizer": ["a.B", null]}, "tokenizer_class": "B"}',
        ),
    ),
    Case(
        "a vocabulary smaller than what it begins with",
        f"{TRAIN} tokenizer.algorithm=byte_bpe tokenizer.train_vocab_size=200",
        "it must be at least 261 for byte_bpe, which begins with 5 special tokens and 256 bytes",
    ),
    Case(
        "new words for a vocabulary that is trained",
        f"{TRAIN} tokenizer.train_vocab_size=300 tokenizer.extend_from_text=9",
        "a vocabulary of this text already; raise that, and leave out the first",
    ),
    Case(
        "given words for a pretrained model under a trained tokenizer",
        f"{TRAIN} tokenizer.train_vocab_size=300 tokenizer.added_tokens=[pillar]",
        "leave one of the three out",
    ),
    Case(
        "new words and a size of the vocabulary",
        f"{TRAIN} model.config.vocab_size=900 tokenizer.added_tokens=[pillar]",
        "and the vocabulary grows by tokenizer.added_tokens or tokenizer.extend_from_text; leave it out",
    ),
    Case(
        "no new words",
        f"{TRAIN} tokenizer.extend_from_text=0",
        "tokenizer.extend_from_text is 0; it must be more than 0",
    ),
    Case(
        "new words that YAML takes for numbers",
        f"{TRAIN} tokenizer.added_tokens=[pillar,404]",
        "tokenizer.added_tokens holds 404, which YAML takes for no word; put it in quotes",
    ),
    Case(
        "a new word with a space before it",
        f"{TRAIN} tokenizer.added_tokens=['\u00a0pillar']",
        "a word has no white space at its ends and no controls",
    ),
    Case(
        "a special token for a new word",
        f"{TRAIN} tokenizer.added_tokens=['<mask>']",
        "tokenizer.added_tokens holds '<mask>', a special token; leave it out",
    ),
    Case(
        "a file of new words that there is not",
        f"{TRAIN} tokenizer.added_tokens={{folder}}/words.txt",
        "words.txt' cannot be read",
    ),
    Case(
        "a file of new words that is no text",
        f"{TRAIN} tokenizer.added_tokens={{folder}}/words.txt",
        "give a list, or a file in UTF-8 with a word a line",
        write("words.txt", b"\xff\xfe"),
    ),
    Case(
        "a RoBERTa whose padding is not at 1",
        TRAIN,
        "takes token 1 for padding, and pad_token_id of its config.json is 0",
        change_json("model/config.json", pad_token_id=0),
    ),
    Case(
        "an algorithm that there is not",
        f"{TRAIN} tokenizer.algorithm=bpe",
        "it must be one of wordpiece, byte_bpe",
    ),
]

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


def leave_weights(*names: str) -> Arrange:
    """Other files in the place of the weights."""
    return then(remove("model/model.safetensors"), *(write(f"model/{name}", b"") for name in names))


FLAX = leave_weights("flax_model.msgpack")
FLAX_SAYS = "its weights are Flax's (flax_model.msgpack), which are not read; convert them once"

MODELS = [
    Case("no folder", f"{TRAIN} model.name_or_path={{folder}}/nowhere", "is not a folder"),
    Case("no package", f"{TRAIN} model.name_or_path=package:a.b/c", "is not installed"),
    Case("no configuration", MODEL, "has no config.json", remove("model/config.json")),
    Case("a configuration that is no JSON", MODEL, "cannot be loaded", write("model/config.json", "{")),
    Case("a configuration that is a list", MODEL, "cannot be loaded", write("model/config.json", "[1]")),
    Case(
        "a model type of another kind",
        MODEL,
        "has no TensorFlow masked-LM head",
        change_json("model/config.json", model_type="gpt2"),
    ),
    Case("a size that is a word", MODEL, "cannot be", change_json("model/config.json", hidden_size="a")),
    Case(
        "heads that do not divide",
        MODEL,
        "cannot be",
        change_json("model/config.json", num_attention_heads=5),
    ),
    Case(
        "code of its own",
        MODEL,
        "which is never run",
        change_json("model/config.json", model_type="mine", auto_map={"AutoConfig": "a.B"}),
    ),
    Case(
        "more layers than anyone has",
        MODEL,
        "model.config.num_hidden_layers is 10,000,000; it must be at most 1000",
        change_json("model/config.json", num_hidden_layers=10**7),
    ),
    Case(
        "a vocabulary that no machine holds",
        MODEL,
        "model.config.vocab_size is 1,000,000,000,000, which with hidden_size 32 needs more",
        change_json("model/config.json", vocab_size=10**12),
    ),
    Case(
        "a configuration nested without end",
        MODEL,
        "config.json is nested too deeply",
        write("model/config.json", "[" * 200_000),
    ),
    Case(
        "weights that are a link elsewhere",
        MODEL,
        "model.safetensors is a link out of its folder",
        link_out("model/model.safetensors"),
    ),
    Case("no weights", MODEL, "has no weights", remove("model/model.safetensors")),
    Case("weights cut short", MODEL, "cannot be read", cut("model/model.safetensors", 0.5)),
    Case("weights that are none", MODEL, "cannot be read", write("model/model.safetensors", "nothing")),
    Case(
        "weights of another size",
        MODEL,
        "and by its config.json [64, 64]",
        change_json("model/config.json", hidden_size=64),
    ),
    Case(
        "pickled weights",
        MODEL,
        "opening a pickle can run code",
        pickle_weights,
    ),
    Case("weights of Flax", MODEL, FLAX_SAYS, FLAX),
    Case("weights of Flax to answer", "predict {folder}/model a\u00a0<mask>", FLAX_SAYS, FLAX),
    Case("weights of Flax to evaluate", "evaluate {folder}/model", FLAX_SAYS, FLAX),
    Case("weights of Flax to export", "export {folder}/model", FLAX_SAYS, FLAX),
    Case(
        "an adapter for a model",
        MODEL,
        "it is a PEFT adapter (adapter_config.json) and no whole model; merge it into its base model 'a/b'",
        then(
            leave_weights("adapter_model.safetensors"),
            write("model/adapter_config.json", '{"base_model_name_or_path": "a/b"}'),
        ),
    ),
    Case(
        "a checkpoint of TensorFlow 1",
        MODEL,
        "it is a checkpoint of Google's TensorFlow 1 code (bert_model.ckpt)",
        leave_weights("bert_model.ckpt.index", "bert_model.ckpt.data-00000-of-00001"),
    ),
    Case(
        "a preset of KerasHub",
        MODEL,
        "it is a preset of KerasHub (model.weights.h5)",
        leave_weights("metadata.json", "model.weights.h5"),
    ),
    Case(
        "weights for answering only",
        MODEL,
        "its weights are ONNX's, for answering only",
        leave_weights("onnx/model.onnx"),
    ),
    Case(
        "a folder of sentence-transformers",
        f"{TRAIN} model.name_or_path={{folder}}/sentences",
        "its model is in the folder '0_Transformer' of it; give that",
        then(write("sentences/modules.json", "[]"), write("sentences/0_Transformer/config.json", "{}")),
    ),
    Case(
        "the pointer of Git LFS for weights",
        MODEL,
        "model.safetensors is a pointer of Git LFS and not the file itself; run `git lfs install`",
        write("model/model.safetensors", POINTER),
    ),
    Case(
        "the pointer of Git LFS for a configuration",
        "predict {folder}/model a\u00a0<mask>",
        "config.json is a pointer of Git LFS",
        write("model/config.json", POINTER),
    ),
    Case(
        "a part of the weights that is not there",
        MODEL,
        "names 'model-00002.safetensors', which is no file beside it; fetch the model again",
        then(
            leave_weights("model-00001.safetensors"),
            write(
                "model/model.safetensors.index.json",
                json.dumps({"weight_map": {"a": "model-00001.safetensors", "b": "model-00002.safetensors"}}),
            ),
        ),
    ),
    Case(
        "a block too long",
        f"{TRAIN} data.block_size=71",
        "data.block_size 71 is over the model's maximum of 70",
    ),
    Case(
        "a block with no place for what is new",
        f"{TRAIN} data.pack=false data.stride=31",
        "has place for 30 of a text beside the special ones, and data.stride is 31",
    ),
    Case(
        "attention within texts where a convolution reads beyond",
        f"{MODEL} model.name_or_path=null model.config.model_type=convbert data.attend_within_texts=true",
        "data.attend_within_texts is true, and convbert cannot: its convolutions read",
    ),
    Case(
        "padding where it is read",
        f"{MODEL} model.name_or_path=null model.config.model_type=mobilebert data.pack=false",
        "data.pack is false, and words of a mobilebert model read the padding",
    ),
    Case("a field that there is not", f"{TRAIN} model.config.hidden_siz=8", "did you mean 'hidden_size'?"),
    Case(
        "a new model of a word",
        f"{MODEL} model.name_or_path=null model.config={{{{model_type:\u00a0bert,hidden_size:\u00a0a}}}}",
        "model.config makes no bert model",
    ),
    Case(
        "a new model of so many layers as a word",
        f"{MODEL} model.name_or_path=null "
        "model.config={{model_type:\u00a0bert,num_hidden_layers:\u00a0a}}",
        "model.config makes no bert model",
    ),
    Case(
        "layers computed again where there are none",
        f"{MODEL} model.name_or_path=null model.config.model_type=xlm train.rematerialize=true",
        "train.rematerialize is true, and TensorFlow's xlm has no layers to compute again",
    ),
]


def begin_run(more: str = "", checkpoint: str = "of-another-run") -> Arrange:
    def arrange(folder: Path) -> None:
        write(f"run/checkpoints/{checkpoint}/state.index", "nothing")(folder)
        write("run/config.yaml", CONFIG.format(folder=folder) + more)(folder)

    return arrange


def put_tokenizer(name: str) -> Arrange:
    return lambda folder: shutil.copytree(folder / "tokens", folder / name)


def keep_config(folder: Path) -> None:
    """So that the model folder counts as one of a run."""
    write("model/run_config.yaml", CONFIG.format(folder=folder))(folder)


RUNS = [
    Case("a folder below a file", f"{TRAIN} run.output_dir={{folder}}/texts.txt/run", "cannot be written"),
    Case(
        "a run folder on an unknown file system",
        f"{TRAIN} run.output_dir=nowhere://bucket/run",
        "'nowhere://bucket/run' is on a file system that TensorFlow does not know here",
    ),
    Case(
        "exports on an unknown file system",
        f"{TRAIN} export.enabled=true export.dir=s3://bucket/exports",
        "'s3://bucket/exports' is on a file system that TensorFlow does not know here",
    ),
    Case("a folder in use", f"{TRAIN} run.output_dir={{folder}}/model", "is not empty and holds no run"),
    Case(
        "another run",
        TRAIN,
        "another configuration (optimizer.learning_rate)",
        begin_run("optimizer: {learning_rate: 0.5}\n"),
    ),
    Case(
        "a checkpoint that is damaged",
        TRAIN,
        "remove the folder to start anew",
        begin_run(checkpoint="step-00000001"),
    ),
    Case("a run that must not resume", f"{TRAIN} train.resume=never", "train.resume is never", begin_run()),
    Case(
        "a result that is none",
        TRAIN,
        "result.json' cannot be read",
        then(begin_run(), write("run/result.json", "[]")),
    ),
    Case(
        "a run with a damaged configuration",
        TRAIN,
        "not valid YAML",
        then(begin_run(), write("run/config.yaml", "{")),
    ),
    Case("no run to evaluate", "evaluate {folder}", "is no finished run"),
    Case(
        "a damaged configuration beside the model",
        "evaluate {folder}/model",
        "not valid YAML",
        write("model/run_config.yaml", "["),
    ),
    Case("no run to push", "push {folder}", "is no finished run"),
]

HEAD_NAMES = ("lm_head.bias", "lm_head.dense", "lm_head.layer_norm")


def drop_head(folder: Path) -> None:
    """As an encoder is saved that was trained for something else."""
    file = folder / "model" / "model.safetensors"
    weights = {name: values for name, values in load_file(file).items() if not name.startswith(HEAD_NAMES)}
    save_file(weights, file, metadata={"format": "pt"})


NO_HEAD = "lack 5 tensors of the masked-LM head (lm_head."

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt")

PREDICT_AND_EXPORT = [
    Case("a model without a head", "predict {folder}/model a\u00a0<mask>", NO_HEAD, drop_head),
    Case("targets for it", "predict {folder}/model a\u00a0<mask> --targets=a", NO_HEAD, drop_head),
    Case("scores of it", "score {folder}/model a", NO_HEAD, drop_head),
    Case("an export of it", "export {folder}/model", NO_HEAD, then(keep_config, drop_head)),
    Case("an evaluation of it", "evaluate {folder}/model", NO_HEAD, then(keep_config, drop_head)),
    Case("no model", "predict {folder}/nowhere/x a\u00a0<mask>", "is not a folder"),
    Case("a text without a mask", "predict {folder}/model no\u00a0mask", "has no mask; write <mask>"),
    Case(
        "a text that is too long",
        "predict {folder}/model <mask>" + "\u00a0a" * 100,
        "the model takes 70; shorten it",
    ),
    Case("no candidates", "predict {folder}/model <mask> --top-k 0", "--top-k is 0; it must be 1 or more"),
    Case(
        "a SavedModel that is none",
        "predict {folder}/saved <mask>",
        "saved",
        write("saved/1/saved_model.pb", "nothing"),
    ),
    Case(
        "words for a SavedModel that is none",
        "predict {folder}/saved <mask> --targets list",
        "is no export of tfmlm, or damaged",
        then(write("saved/1/saved_model.pb", "nothing"), put_tokenizer("saved/1/assets.extra/tokenizer")),
    ),
    Case(
        "an output below a file",
        "predict {folder}/model <mask> --output {folder}/texts.txt/x",
        "texts.txt/x' cannot be written: Not a directory",
    ),
    Case(
        "half a letter in JSON",
        "predict {folder}/model --input {folder}/rows.jsonl",
        "rows.jsonl row 2 is not Unicode: character 8 is a lone surrogate",
        write("rows.jsonl", '{"text": "a <mask>"}\n{"text": "<mask> \\ud800"}\n'),
    ),
    Case(
        "an argument that is no UTF-8",
        "predict {folder}/model <mask>\udcff",
        "is not Unicode: character 7 is a lone surrogate",
    ),
    Case("a score of no UTF-8", "score {folder}/model \udcff", "is not Unicode"),
    Case(
        "a line that is too long",
        "score {folder}/model --input {folder}/texts.txt",
        "texts.txt row 2 has more than 16,777,216 bytes; shorten it",
        write("texts.txt", "a\n" + "b" * (2**24 + 1) + "\n"),
    ),
    Case("an evaluation of no run", "evaluate {folder}/model", "has no run_config.yaml"),
    Case("an export of no model", "export {folder}/tokens", "has no run_config.yaml and no config.json"),
    Case("an export of no folder", "export {folder}/nowhere/x", "is not a folder; give a model folder or a"),
    Case("an export of a model without a head", "export {folder}/model", NO_HEAD, drop_head),
    Case(
        "an export of a model without a tokenizer",
        "export {folder}/model",
        "model' holds no tokenizer: ",
        lambda folder: [path.unlink() for path in folder.glob("model/*") if path.name in TOKENIZER_FILES],
    ),
    Case(
        "an export with another model's tokenizer",
        "export {folder}/model",
        "tokens and the model only",
        change_json("model/vocab.json", far=10**5),
    ),
    Case(
        "a setting of training for an export of a model",
        "export {folder}/model train.epochs=2",
        "override 'train.epochs=2' changes nothing in an export of ",
    ),
    Case(
        "text that there is not, for an export of a model",
        "export {folder}/model data.source=text data.train_files=[{folder}/nowhere.txt]",
        "nowhere.txt",
    ),
    Case(
        "more candidates than a request may have",
        "export {folder}/model export.max_top_k=5000",
        "export.max_top_k is 5000; it must be between 1 and 1000",
    ),
    Case(
        "an export below a file",
        "export {folder}/model export.dir={folder}/texts.txt",
        "failed",
        keep_config,
    ),
    Case(
        "candidates in an export",
        "export {folder}/model export.top_k=0",
        "export.top_k is 0",
        keep_config,
    ),
]


FREE_PORTS = "--port 0 --grpc-port 0"

SERVER = [
    Case("no version", f"serve {{folder}} {FREE_PORTS}", "has no version"),
    Case(
        "no folder",
        f"serve {{folder}}/none {FREE_PORTS}",
        "is no folder; give one that `tfmlm export` wrote",
    ),
    Case(
        "a version for its folder",
        f"serve {{folder}}/saved/1 {FREE_PORTS}",
        "is one version; give the folder above it",
        write("saved/1/saved_model.pb", ""),
    ),
    Case(
        "a version that does not load",
        f"serve {{folder}}/saved {FREE_PORTS}",
        "no version in",
        write("saved/1/saved_model.pb", "nothing"),
    ),
    Case("a label of no number", "serve {folder} --label new", "--label is 'new'; it must be like stable=1"),
    Case("a batch of nothing", "serve {folder} --max-batch 0", "--max-batch is 0; it must be 1 or more"),
    Case(
        "a port that there is not",
        "serve {folder} --port 70000",
        "--port is 70000; it must be 0 to 65535",
    ),
    Case(
        "a host that there is not",
        f"serve {{folder}} {FREE_PORTS} --host 192.0.2.1",
        "cannot listen on 192.0.2.1",
    ),
    Case(
        "a name with a slash",
        "serve {folder} --name a/b",
        "--name is 'a/b'; it must be a name without / and :",
    ),
    Case(
        "a URL as an allowed host",
        "serve {folder} --allow-host https://models.example.com",
        "--allow-host is 'https://models.example.com'; it must be like models.example.com",
    ),
    Case(
        "no time for an answer",
        "serve {folder} --max-seconds 0",
        "--max-seconds is 0; it must be 1 or more",
    ),
]

CLIENT = [
    Case("no URL", "query nowhere <mask>", "does not name a served model; write http(s)://"),
    Case("a password in the URL", "query http://me:secret@localhost:1/v1/models/a <mask>", "leave it out"),
    Case(
        "a port that there is not",
        "query http://localhost:99999/v1/models/a <mask>",
        "the URL of the server is not valid",
    ),
    Case(
        "nobody listens (REST)",
        "query http://127.0.0.1:9/v1/models/a <mask> --max-attempts 1",
        "cannot reach http://127.0.0.1:9",
    ),
    Case(
        "nobody listens (gRPC)",
        "query grpc://127.0.0.1:9/a <mask> --max-attempts 1 --timeout 5",
        "grpc://127.0.0.1:9/a",
    ),
    Case("no time", "query http://127.0.0.1:9/v1/models/a <mask> --timeout 0", "it must be above 0"),
    Case(
        "too many attempts",
        "query http://127.0.0.1:9/v1/models/a <mask> --max-attempts 9",
        "it must be 1 to 5",
    ),
    Case(
        "no candidates of a server",
        "query http://127.0.0.1:9/v1/models/a <mask> --top-k 0",
        "top_k is 0; it must be 1 or more",
    ),
    Case(
        "an empty target",
        "query http://127.0.0.1:9/v1/models/a <mask> --targets=a,",
        "targets are ['a', '']; give words, none of them empty",
    ),
    Case(
        "a target that is several tokens, tokenized here",
        "query http://127.0.0.1:9/v1/models/a <mask> --targets=two\u00a0words --tokenizer {folder}/tokens",
        "target 'two words' is not one token of the vocabulary; choose another word",
    ),
    Case(
        "no certificate",
        "query https://127.0.0.1:9/v1/models/a <mask> --ca-file {folder}/texts.txt",
        "holds no certificate",
    ),
    Case(
        "no tokenizer",
        "query http://127.0.0.1:9/v1/models/a <mask> --tokenizer {folder}",
        "has no tokenizer.json",
    ),
    Case(
        "a tokenizer that is none",
        "query http://127.0.0.1:9/v1/models/a <mask> --tokenizer {folder}",
        "cannot be read",
        write("tokenizer.json", "[]"),
    ),
    Case(
        "a text that is no UTF-8, tokenized here",
        "query http://127.0.0.1:9/v1/models/a \ud800 --tokenizer {folder}/tokens",
        "has bytes that are not UTF-8",
    ),
    Case(
        "a text that is no UTF-8",
        "query http://127.0.0.1:9/v1/models/a \ud800",
        "has bytes that are not UTF-8",
    ),
]


TABLE: dict[str, list[Case]] = {
    "Configuration": CONFIGURATION,
    "Without a configuration": WITHOUT_CONFIGURATION,
    "Callbacks": CALLBACKS,
    "Data": DATA,
    "Tokenizer": TOKENIZER,
    "Model": MODELS,
    "Run and checkpoint": RUNS,
    "Predict and export": PREDICT_AND_EXPORT,
    "Server": SERVER,
    "Client": CLIENT,
}


def write_page() -> str:
    """The table as Markdown."""
    lines = [
        "# What tfmlm says to mistakes",
        "",
        "Every mistake below ends in exit code 2 and one line on the error stream that says what was",
        "received and what to do. Nothing half-written stays behind. `--debug` shows the traceback as well.",
        "The page is made from the cases that are tested:",
        "`python -m tests.cli.bad_input > docs/bad-input.md`.",
    ]
    for area, cases in TABLE.items():
        lines += ["", f"## {area}", "", "| The mistake | The line holds |", "| --- | --- |"]
        lines += [f"| {case.mistake} | `{case.says.strip()}` |" for case in cases]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(write_page())
