"""Every source gives the texts it holds, all of them, and says in one line what is wrong when it cannot."""

import csv
import gc
import gzip
import json
import os
from collections.abc import Callable, Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from tfmlm.config import DataConfig
from tfmlm.data import installed_docs
from tfmlm.data.splitting import load_texts
from tfmlm.data.text_stream import TextStream
from tfmlm.errors import UserError

TEXTS = [f"text number {number}" for number in range(20)]


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither this project's cache nor that of datasets."""
    monkeypatch.setenv("TFMLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.fixture
def left_open() -> Iterator[None]:
    """Collects the files that the CSV reader of datasets does not close while their warning is ignored."""
    yield
    gc.collect()


def reads_csv(test: Callable[..., None]) -> Callable[..., None]:
    ignored = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
    return pytest.mark.usefixtures("left_open")(ignored(test))


def write_lines(path: Path, lines: list[str]) -> str:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def write_json(path: Path, rows: list[object]) -> str:
    return write_lines(path, [json.dumps(row) for row in rows])


def load_all(seed: int = 0, **settings: object) -> list[str]:
    """Every text, training and held out, sorted."""
    texts = load_texts(DataConfig(**settings), seed)
    return sorted(read(texts.train) + read(texts.validation))


def read(stream: TextStream) -> list[str]:
    return [text for batch in stream for text in batch]


# === Formats ===


def test_json_lines(tmp_path: Path) -> None:
    path = write_json(
        tmp_path / "a.jsonl", [{"id": number, "text": text} for number, text in enumerate(TEXTS)]
    )
    assert load_all(source="json", train_files=[path]) == sorted(TEXTS)


def test_json_nested_lists_are_joined_by_a_space(tmp_path: Path) -> None:
    """The shape of ELI5, which the masked-language-modelling guide reads."""
    rows = [
        {
            "q_id": "a",
            "answers": {"a_id": ["1", "2"], "text": ["First answer.", "Second answer."], "score": [3, 1]},
        },
        {"q_id": "b", "answers": {"a_id": ["3"], "text": ["Only answer."], "score": [7]}},
        {"q_id": "c", "answers": {"a_id": ["4", "5"], "text": ["", "After an empty one."], "score": [0, 0]}},
        {"q_id": "d", "answers": {"a_id": [], "text": [], "score": []}},
        {"q_id": "e", "answers": {"a_id": ["6"], "text": None, "score": [0]}},
    ]
    path = write_json(tmp_path / "eli5.jsonl", rows)
    assert load_all(source="json", train_files=[path], text_column="answers.text") == [
        "After an empty one.",
        "First answer. Second answer.",
        "Only answer.",
    ]


def test_json_nested_strings_at_any_depth(tmp_path: Path) -> None:
    rows = [{"page": {"body": {"text": text}, "title": "t"}} for text in TEXTS]
    path = write_json(tmp_path / "a.jsonl", rows)
    assert load_all(source="json", train_files=[path], text_column="page.body.text") == sorted(TEXTS)


@reads_csv
def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    texts = [*TEXTS, 'quoted, with "quotes"', "two\nlines", "na\u00efve"]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["number", "body"], *enumerate(texts)])
    assert load_all(source="csv", train_files=[str(path)], text_column="body") == sorted(texts)


@pytest.mark.parametrize("string", [pa.string(), pa.large_string()], ids=str)
@pytest.mark.parametrize("as_lists", [False, True], ids=["strings", "lists"])
def test_parquet(string: pa.DataType, as_lists: bool, tmp_path: Path) -> None:
    column = (
        pa.array([text.split(" ") for text in TEXTS], pa.list_(string))
        if as_lists
        else pa.array(TEXTS, string)
    )
    parquet.write_table(pa.table({"text": column, "number": range(20)}), tmp_path / "a.parquet")
    assert load_all(source="parquet", train_files=[str(tmp_path / "a.parquet")]) == sorted(TEXTS)


def test_text_is_one_text_a_line(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.txt", [*TEXTS, "\u4e2d\u6587 \U0001f600"])
    assert load_all(source="text", train_files=[path]) == sorted([*TEXTS, "\u4e2d\u6587 \U0001f600"])


# === Files ===


def test_globs_and_several_files_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    write_lines(tmp_path / "b.txt", ["b"])
    write_lines(tmp_path / "a.txt", ["a"])
    write_lines(tmp_path / "deep" / "er" / "c.txt", ["c"])
    write_lines(tmp_path / "other.md", ["not matched"])
    last = write_lines(tmp_path / "last.log", ["last"])
    held_out = write_lines(tmp_path / "held_out", ["held out"])
    texts = load_texts(
        DataConfig(
            source="text",
            train_files=[str(tmp_path / "*.txt"), str(tmp_path / "deep" / "**" / "*.txt"), last],
            validation_files=[held_out],
        ),
        seed=0,
    )
    assert read(texts.train) == ["a", "b", "c", "last"]


def test_validation_files_are_held_out_whole_and_nothing_else_is(tmp_path: Path) -> None:
    train, held_out = write_lines(tmp_path / "t.txt", TEXTS), write_lines(tmp_path / "v.txt", ["x", "", "y"])
    data = DataConfig(
        source="text", train_files=[train], validation_files=[held_out], validation_fraction=0.5, max_rows=15
    )
    texts = load_texts(data, seed=0)
    assert read(texts.validation) == ["x", "y"]
    assert len(read(texts.train)) == 15


def test_one_text_is_enough_beside_validation_files(tmp_path: Path) -> None:
    train, held_out = write_lines(tmp_path / "t.txt", ["one"]), write_lines(tmp_path / "v.txt", ["x"])
    texts = load_texts(DataConfig(source="text", train_files=[train], validation_files=[held_out]), seed=0)
    assert read(texts.train) == ["one"]


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.txt", TEXTS)
    assert load_all(source="text", train_files=[path]) == sorted(TEXTS)
    write_lines(tmp_path / "a.txt", ["other", "lines"])
    assert load_all(source="text", train_files=[path]) == ["lines", "other"]


# === Rows ===


def test_blank_texts_are_dropped(tmp_path: Path) -> None:
    rows = [{"text": text} for text in ["kept", "", "  ", "\n\t", None, "\u00a0", " kept as it is "]]
    path = write_json(tmp_path / "a.jsonl", rows)
    assert load_all(source="json", train_files=[path]) == [" kept as it is ", "kept"]


def test_validation_fraction(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.txt", TEXTS)
    texts = load_texts(DataConfig(source="text", train_files=[path], validation_fraction=0.25), seed=0)
    assert 1 <= len(read(texts.validation)) <= 10
    assert sorted(read(texts.train) + read(texts.validation)) == sorted(TEXTS)


def test_max_rows_takes_a_sample_before_the_split(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.txt", TEXTS)
    some = load_all(source="text", train_files=[path], max_rows=8)
    assert len(set(some)) == 8
    assert set(some) < set(TEXTS)
    assert some != sorted(TEXTS[:8])
    assert load_all(source="text", train_files=[path], max_rows=100) == sorted(TEXTS)


def test_the_seed_chooses_the_sample_and_the_held_out_texts(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.txt", TEXTS)

    def load(seed: int) -> tuple[list[str], list[str]]:
        data = DataConfig(source="text", train_files=[path], max_rows=10, validation_fraction=0.3)
        texts = load_texts(data, seed)
        return read(texts.train), read(texts.validation)

    assert load(1) == load(1)
    assert sorted(load(1)[0] + load(1)[1]) != sorted(load(2)[0] + load(2)[1])
    assert set(load(1)[1]) != set(load(2)[1])


# === Installed docs ===

LONG = "This docstring is long enough to teach a model something about how Python people write. " * 2


def write_module(path: Path, *docstrings: str) -> None:
    """A module whose docstring is the first, with a function for each other one."""
    first, *rest = docstrings
    functions = "".join(f"def function_{number}():\n    {doc!r}\n" for number, doc in enumerate(rest))
    path.write_text(f"{first!r}\n{functions}", encoding="utf-8")


@pytest.fixture
def site_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages in the place of the real one."""
    folder = tmp_path / "site-packages"
    (folder / "package").mkdir(parents=True)
    write_module(folder / "package" / "b.py", f"B: {LONG}", f"B0: {LONG}", "short", f"B2: {LONG}")
    write_module(folder / "package" / "a.py", f"A: {LONG}", f"B0: {LONG}")
    (folder / "package" / "broken.py").write_text(f'"""{LONG}"""\nprint "Python 2"\n')
    (folder / "package" / "null.py").write_bytes(b'"""\0"""')
    (folder / "package" / "latin.py").write_bytes(f'"""\xe9 {LONG}"""'.encode("latin-1"))
    (folder / "package" / "data.txt").write_text(f'"""{LONG}"""')
    (folder / "package" / "raises.py").write_text(
        f'"""Imported: {LONG}"""\nraise AssertionError("imported")\n'
    )
    monkeypatch.setattr(installed_docs, "sysconfig", SimpleNamespace(get_path=lambda name: str(folder)))
    monkeypatch.setattr(installed_docs, "site", SimpleNamespace(ENABLE_USER_SITE=False))
    return folder


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were parsed, in this process, which saves starting others."""
    files: list[Path] = []
    parse = installed_docs._parse_docstrings

    def parse_and_note(path: Path) -> list[str]:
        files.append(path)
        return parse(path)

    context = SimpleNamespace(Pool=ThreadPool)
    monkeypatch.setattr(installed_docs, "_parse_docstrings", parse_and_note)
    monkeypatch.setattr(
        installed_docs, "multiprocessing", SimpleNamespace(get_context=lambda method: context)
    )
    return files


def test_installed_docs_come_once_in_the_order_of_the_files(site_packages: Path) -> None:
    texts = installed_docs.load_installed_docs(num_proc=2)
    starts = [text.split(":")[0] for text in texts["text"]]
    assert starts == ["A", "B0", "B", "B2", "Imported"]
    assert texts["text"][0] == f"A: {LONG}"


def test_installed_docs_are_found_in_classes_methods_and_coroutines_and_dedented(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        f'class Named:\n    """Class: {LONG}\n\n        Indented.\n    Not.\n    """\n'
        f'    async def method(self):\n        """Coroutine: {LONG}"""\n'
        f'x = """Not a docstring: {LONG}"""\n'
    )
    found = installed_docs._parse_docstrings(path)
    assert [text.split(":")[0] for text in found] == ["Class", "Coroutine"]
    assert found[0].endswith("\n\n    Indented.\nNot.")


def test_old_packages_with_invalid_escapes_do_not_warn(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(f'"""Escape \\d: {LONG}"""\n')
    assert len(installed_docs._parse_docstrings(path)) == 1


def test_installed_docs_are_not_parsed_again(site_packages: Path, parsed: list[Path]) -> None:
    first = installed_docs.load_installed_docs(num_proc=1)["text"][:]
    assert len(parsed) == 6
    assert installed_docs.load_installed_docs(num_proc=1)["text"][:] == first
    assert len(parsed) == 6


def change_size(path: Path) -> None:
    write_module(path, f"A: {LONG}", f"New: {LONG}")


def change_time(path: Path) -> None:
    status = path.stat()
    write_module(path, f"Z: {LONG}", f"B0: {LONG}")
    assert path.stat().st_size == status.st_size
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def remove(path: Path) -> None:
    path.unlink()


def add(path: Path) -> None:
    write_module(path.with_name("added.py"), f"Added: {LONG}")


@pytest.mark.parametrize("change", [change_size, change_time, remove, add])
def test_installed_docs_are_parsed_again_after_a_change(
    change: Callable[[Path], None], site_packages: Path, parsed: list[Path]
) -> None:
    before = installed_docs.load_installed_docs(num_proc=1)["text"][:]
    change(site_packages / "package" / "a.py")
    after = installed_docs.load_installed_docs(num_proc=1)["text"][:]
    assert len(parsed) > 6
    assert after != before


def test_user_packages_are_read_if_python_reads_them(
    site_packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = tmp_path / "user"
    user.mkdir()
    write_module(user / "mine.py", LONG)
    assert user / "mine.py" not in installed_docs.list_source_files()
    monkeypatch.setattr(
        installed_docs, "site", SimpleNamespace(ENABLE_USER_SITE=True, getusersitepackages=lambda: str(user))
    )
    files = installed_docs.list_source_files()
    assert user / "mine.py" in files
    assert files == sorted(set(files))


def test_installed_docs_as_a_source(site_packages: Path, parsed: list[Path]) -> None:
    texts = load_all(source="installed-docs", validation_fraction=0.4)
    assert {text.split(":")[0] for text in texts} == {"A", "B", "B0", "B2", "Imported"}
    assert len(texts) == 5


# === Errors: one line that names the key or the file ===


def assert_refused(*named: str, **settings: object) -> None:
    with pytest.raises(UserError) as refusal:
        load_texts(DataConfig(**settings), seed=0)
    message = str(refusal.value)
    assert message
    assert "\n" not in message
    for name in named:
        assert name in message


def test_missing_column_lists_the_columns(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.jsonl", [{"title": "t", "page": {"body": "b", "n": 1}}])
    assert_refused(
        "data.text_column 'text'",
        "title, page.body, page.n",
        source="json",
        train_files=[path],
    )


@pytest.mark.parametrize(
    ("value", "described"),
    [(1, "int64"), (1.5, "float64"), (True, "bool"), ([1, 2], "int64"), (None, "null")],
    ids=str,
)
def test_a_column_that_is_not_text(value: object, described: str, tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.jsonl", [{"text": value, "title": "t"}])
    assert_refused(
        f"data.text_column 'text' holds {described}", "text, title", source="json", train_files=[path]
    )


@pytest.mark.parametrize("blank", [[""], [" ", "\t"]], ids=repr)
def test_data_whose_texts_are_all_blank(blank: list[str], tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.txt", blank)
    assert_refused("holds no text in column 'text'", source="text", train_files=[path])


@reads_csv
@pytest.mark.parametrize("source", ["json", "csv", "text", "parquet"])
def test_an_empty_file(source: str, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "empty", [])
    assert_refused(path, source=source, train_files=[path])


@reads_csv
def test_a_csv_of_a_header_alone(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "header.csv", ["text"])
    assert_refused(path, source="csv", train_files=[path])


def test_a_glob_without_a_match(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.txt", TEXTS)
    nothing = str(tmp_path / "*.nothing")
    assert_refused(nothing, "data.train_files", source="text", train_files=[path, nothing])
    assert_refused(
        nothing, "data.validation_files", source="text", train_files=[path], validation_files=[nothing]
    )


def test_one_text_cannot_be_split(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.txt", ["only one", "  "])
    assert_refused("'text' holds 1 text", "data.validation_files", source="text", train_files=[path])


def test_a_fraction_that_leaves_nothing_to_train_on(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.txt", ["one", "two"])
    assert_refused("data.validation_fraction", source="text", train_files=[path], validation_fraction=0.9)


BROKEN = {
    "json": b'{"text": "a"}\n{"text": oops}\n',
    "csv": b"text\na\xe9\n",
    "text": b"a\xe9b\n",
    "parquet": b"PAR1 and then something else",
}


@reads_csv
@pytest.mark.parametrize("source", BROKEN)
def test_a_broken_file(source: str, tmp_path: Path) -> None:
    path = tmp_path / "broken"
    path.write_bytes(BROKEN[source])
    assert_refused(f"{source} file cannot be read", str(path), source=source, train_files=[str(path)])


def test_files_with_other_columns(tmp_path: Path) -> None:
    paths = [
        write_json(tmp_path / "a.jsonl", [{"text": "a"}]),
        write_json(tmp_path / "b.jsonl", [{"body": "b", "number": 1}]),
    ]
    assert_refused(*paths, source="json", train_files=paths)


def test_a_dataset_that_the_hub_does_not_give() -> None:
    assert_refused(
        "data.source 'nobody/nothing'", "installed-docs", "json, csv, parquet, text", source="nobody/nothing"
    )


def test_a_folder_with_a_broken_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "train.jsonl").write_bytes(BROKEN["json"])
    assert_refused(f"data.source '{tmp_path / 'folder'}'", source=str(tmp_path / "folder"))


# === Folders, documents, splits ===


def test_a_folder_stands_for_its_files_of_that_kind(tmp_path: Path) -> None:
    (tmp_path / "texts" / "deep").mkdir(parents=True)
    write_lines(tmp_path / "texts" / "b.txt", TEXTS[:10])
    write_lines(tmp_path / "texts" / "deep" / "a.txt", TEXTS[10:])
    write_lines(tmp_path / "texts" / "notes.csv", ["not, this"])
    assert load_all(source="text", train_files=[str(tmp_path / "texts")]) == sorted(TEXTS)


def test_a_folder_without_such_files(tmp_path: Path) -> None:
    write_lines(tmp_path / "notes.csv", ["not, this"])
    assert_refused("no json file matches", str(tmp_path), source="json", train_files=[str(tmp_path)])


def test_gzip_files(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in TEXTS)
    assert load_all(source="json", train_files=[str(tmp_path)]) == sorted(TEXTS)


def test_whole_documents_and_paragraphs(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"{number}.txt").write_text(f"first {number}\nline\n\nsecond {number}")
    documents = load_all(source="text", train_files=[str(tmp_path)], sample_by="document")
    assert documents == ["first 0\nline\n\nsecond 0", "first 1\nline\n\nsecond 1"]
    paragraphs = load_all(source="text", train_files=[str(tmp_path)], sample_by="paragraph")
    assert paragraphs == ["first 0\nline", "first 1\nline", "second 0", "second 1"]


@pytest.fixture
def dataset_folder(tmp_path: Path) -> str:
    """A dataset with splits of its own, as the Hub has them."""
    folder = tmp_path / "dataset"
    folder.mkdir()
    for split, texts in {"train": TEXTS[:12], "validation": TEXTS[12:16], "test": TEXTS[16:]}.items():
        write_json(folder / f"{split}.jsonl", [{"text": text} for text in texts])
    return str(folder)


def test_a_datasets_own_validation_split_is_held_out(dataset_folder: str) -> None:
    texts = load_texts(DataConfig(source=dataset_folder), 0)
    assert sorted(read(texts.train)) == sorted(TEXTS[:12])
    assert sorted(read(texts.validation)) == sorted(TEXTS[12:16])


def test_another_split_can_be_held_out(dataset_folder: str) -> None:
    texts = load_texts(DataConfig(source=dataset_folder, validation_split="test", split="train[:5]"), 0)
    assert read(texts.train) == TEXTS[:5]
    assert read(texts.validation) == TEXTS[16:]


def test_training_on_the_validation_split_holds_out_a_part_of_it(dataset_folder: str) -> None:
    texts = load_texts(DataConfig(source=dataset_folder, split="validation", validation_fraction=0.5), 0)
    assert sorted([*read(texts.train), *read(texts.validation)]) == sorted(TEXTS[12:16])
