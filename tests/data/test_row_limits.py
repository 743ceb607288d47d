"""A row has a limit, whatever the file: it is named or skipped, and no memory grows with it."""

import bz2
import csv
import gzip
import io
import json
import lzma
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from tests.data.source_files import load_all, read_file
from tests.folders import CHECKOUT
from tfmlm.config import DataConfig
from tfmlm.data import files
from tfmlm.data.compressed import cut_rows, open_bytes
from tfmlm.data.files import BadRow, read_rows
from tfmlm.data.sources import open_training_texts
from tfmlm.errors import UserError


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, "zstd", asbytes=True))


def lz4(content: bytes) -> bytes:
    return bytes(pa.compress(content, "lz4", asbytes=True))


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".lzma": lambda content: lzma.compress(content, lzma.FORMAT_ALONE),
    ".zst": zstd,
    ".lz4": lz4,
}


def write_csv(texts: list[str]) -> bytes:
    content = io.StringIO(newline="")
    csv.writer(content).writerows([["text"], *([text] for text in texts)])
    return content.getvalue().encode()


def write_parquet(texts: list[str]) -> bytes:
    content = io.BytesIO()
    parquet.write_table(pa.table({"text": texts}), content, row_group_size=1)
    return content.getvalue()


ENCODERS: dict[str, Callable[[list[str]], bytes]] = {
    "text": lambda texts: "".join(f"{text}\n" for text in texts).encode(),
    "json": lambda texts: "".join(json.dumps({"text": text}) + "\n" for text in texts).encode(),
    "csv": write_csv,
    "parquet": write_parquet,
}

LIMIT = 100
lengths = st.integers(1, 40) | st.sampled_from([85, 86, 99, 100, 101, 130, 2000])


@pytest.mark.parametrize("source", ENCODERS)
@settings(deadline=None, max_examples=40)
@given(
    texts=st.lists(
        st.builds(lambda letter, n: letter * n, st.sampled_from('ab"'), lengths), min_size=1, max_size=5
    ),
    suffix=st.sampled_from(sorted(COMPRESSORS)),
    chunk_bytes=st.sampled_from([7, 1 << 20]),
)
def test_a_row_is_bad_if_it_is_longer_and_only_then(
    source: str, texts: list[str], suffix: str, chunk_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("rows") / "a"
    content = ENCODERS[source](texts)
    path.write_bytes(content if source == "parquet" else COMPRESSORS[suffix](content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_CHUNK_BYTES", chunk_bytes)
        rows = list(read_rows(str(path), DataConfig(source=source, max_text_bytes=LIMIT)))
    read = rows[1:] if source == "csv" else rows
    assert len(read) == len(texts)
    for text, row in zip(texts, read, strict=True):
        if isinstance(row, BadRow):
            # A row has what is around the text too: quotes, doubled ones, braces.
            assert "data.max_text_bytes" in row.reason
            assert 2 * len(text) + 20 > LIMIT
        else:
            assert row == text
            assert len(text) <= LIMIT


@pytest.mark.parametrize("sample_by", ["line", "paragraph", "document"])
def test_each_way_to_cut_a_text_file_has_the_limit(sample_by: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(
        "good\n\n" + "a b\n" * 50 + "\nend\n" if sample_by == "paragraph" else "x" * 200 + "\ngood\n"
    )
    rows = read_file(path, "text", sample_by=sample_by, max_text_bytes=LIMIT)
    (bad,) = (row for row in rows if isinstance(row, BadRow))
    assert str(bad) == f"{path}, row {bad.row}: it has more than 100 bytes (data.max_text_bytes)"
    good = [row.strip() for row in rows if isinstance(row, str)]
    assert good == {"line": ["good"], "paragraph": ["good", "end"], "document": []}[sample_by]


def test_a_record_of_many_lines_is_one_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('text\ngood\n"' + "a b\n" * 50 + '"\n"' + "y" * 200 + '"\nend\n')
    rows = read_file(path, "csv", max_text_bytes=LIMIT)
    assert [row for row in rows if isinstance(row, str)] == ["", "good", "end"]
    assert [row.row for row in rows if isinstance(row, BadRow)] == [3, 4]


@pytest.mark.parametrize("on_bad_rows", ["error", "skip"])
def test_a_long_row_is_named_or_counted(on_bad_rows: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("good\n" + "x" * 200 + "\nalso good\n")
    data = DataConfig(source="text", train_files=[str(path)], on_bad_rows=on_bad_rows, max_text_bytes=LIMIT)
    stream = open_training_texts(data)
    if on_bad_rows == "error":
        with pytest.raises(UserError, match=r"a\.txt, row 2: it has more than 100 bytes"):
            list(stream)
    else:
        assert list(stream) == [["good", "also good"]]
        assert stream.bad_rows[str(path)].num_rows == 1


@settings(deadline=None, max_examples=200)
@given(content=st.text("ab\r\n", max_size=60), most=st.integers(0, 9))
def test_cut_lines_are_the_beginnings_of_the_lines(content: str, most: int) -> None:
    with io.TextIOWrapper(cut_rows(io.BytesIO(content.encode()), most), newline="") as cut:
        lines = list(cut)
    whole = list(io.StringIO(content, newline=""))
    assert len(lines) == len(whole)
    for line, of in zip(lines, whole, strict=True):
        assert line.rstrip("\r\n") in (
            of.rstrip("\r\n"),
            of.rstrip("\r\n")[: max(most + 1, len(line.rstrip()))],
        )
        assert line[len(line.rstrip("\r\n")) :] == of[len(of.rstrip("\r\n")) :]


# === Memory ===

MEGABYTE = 1 << 20
SIZE = 200 * MEGABYTE


def write_zeros(path: Path) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(SIZE // MEGABYTE):
            file.write(bytes(MEGABYTE))


def write_around(before: bytes, after: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            file.write(before)
            for _ in range(SIZE // MEGABYTE):
                file.write(b"ab c" * (MEGABYTE // 4))
            file.write(after)

    return write


def write_repeated(path: Path) -> None:
    """A text that the file holds once, and that is each of its rows."""
    parquet.write_table(pa.table({"text": ["y" * (15 * MEGABYTE)] * 50}), path, compression="zstd")


def write_plain(path: Path) -> None:
    """As many, each in a page of its own."""
    texts = pa.table({"text": ["y" * (15 * MEGABYTE)] * 50})
    parquet.write_table(
        texts, path, compression="zstd", use_dictionary=False, write_batch_size=1, data_page_size=1
    )


MEMORY = {
    "gzip": ("text", write_zeros),
    "a line": ("text", write_around(b"good\n", b"\ngood\n")),
    "JSON": ("json", write_around(b'{"text": "', b'"}\n')),
    "a JSON list": ("json", write_around(b'[{"text": "', b'"}]')),
    "CSV": ("csv", write_around(b'text\n"', b'"\n')),
    "Parquet": ("parquet", write_repeated),
    "Parquet without a dictionary": ("parquet", write_plain),
}

SCRIPT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (8 * 10**9, 8 * 10**9))
from tests.memory import read_peak
from tfmlm.config import DataConfig
from tfmlm.data.files import read_batches
before = read_peak()
for batch in read_batches(sys.argv[1], DataConfig(source=sys.argv[2], on_bad_rows="skip")): pass
print(read_peak() - before)
"""

MOST_KILOBYTES = 500_000
"""A few texts of the default limit, in Python's and Arrow's memory; the rows above have 200 to 750 MB."""


@pytest.mark.parametrize("kind", MEMORY)
def test_memory_does_not_grow_with_a_row(kind: str, tmp_path: Path) -> None:
    source, write = MEMORY[kind]
    path = tmp_path / "row"
    write(path)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), source],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    path.unlink()
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < (MOST_KILOBYTES if "Parquet" in kind else MOST_KILOBYTES // 3)


LARGE = ["a" * 200_000, "b" * 300_000, "c"] * 50
COLUMNS = {
    "text": {"text": LARGE},
    "large_string": {"text": pa.array(LARGE, pa.large_string())},
    "list": {"text": [[text] for text in LARGE]},
    "struct": {"text": [{"en": text} for text in LARGE]},
    "two": {"text": LARGE, "more": [""] * len(LARGE)},
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_texts_that_a_file_holds_once_are_read_whatever_the_column(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    parquet.write_table(pa.table(COLUMNS[kind]), path)
    column = {"struct": "text.en", "two": "text,more"}.get(kind, "text")
    assert read_file(path, "parquet", text_column=column) == LARGE


# === Kinds of compression ===


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_a_folder_stands_for_files_of_every_compression(suffix: str, tmp_path: Path) -> None:
    for source, name in (("text", "a.txt"), ("json", "b.jsonl"), ("csv", "c.csv")):
        folder = tmp_path / source
        folder.mkdir()
        (folder / f"{name}{suffix}").write_bytes(COMPRESSORS[suffix](ENCODERS[source](["one", "two"])))
        texts = load_all(source=source, train_files=[str(folder)], validation_fraction=0.5)
        assert texts == ["one", "two"]


UNREADABLE = {
    "a.txt": (b"PK\x03\x04" + bytes(30), "a zip archive"),
    "b.txt": (b"7z\xbc\xaf\x27\x1c" + bytes(30), "a 7z archive"),
    "c.txt": (b"Rar!\x1a\x07\x00", "a rar archive"),
    "d.txt": (b"\x1f\x9d\x90abc", "compress (.Z)"),
    "e.txt": (b"PAR1" + bytes(30), "Parquet; set data.source=parquet"),
    "f.txt": (b"a.txt" + bytes(252) + b"ustar\x0000", "a tar archive"),
    "g.tgz": (gzip.compress(b"a.txt" + bytes(252) + b"ustar\x0000"), "a tar archive"),
    "h.txt.br": (b"\x0b\x02\x80hello\x03", "compressed by brotli"),
}


@pytest.mark.parametrize("on_bad_rows", ["error", "skip"])
@pytest.mark.parametrize("name", UNREADABLE)
def test_a_kind_that_is_not_read_is_no_bad_row(name: str, on_bad_rows: str, tmp_path: Path) -> None:
    content, kind = UNREADABLE[name]
    (tmp_path / name).write_bytes(content)
    data = DataConfig(source="text", train_files=[str(tmp_path / name)], on_bad_rows=on_bad_rows)
    with pytest.raises(UserError) as refusal:
        list(open_training_texts(data))
    assert f"{tmp_path / name} is " in str(refusal.value)
    assert kind in str(refusal.value)


@pytest.mark.parametrize("suffix", [".zst", ".lz4"])
def test_what_arrow_decompresses_goes_back_to_its_start_and_tells_of_its_end(
    suffix: str, tmp_path: Path
) -> None:
    content = "".join(f"line {number}\n" for number in range(10_000)).encode()
    path = tmp_path / "a"
    path.write_bytes(COMPRESSORS[suffix](content))
    with open_bytes(str(path)) as file:
        assert file.read(100) == content[:100]
        file.seek(5000)
        assert file.read(10) == content[5000:5010]
        file.seek(3)
        assert file.read() == content[3:]
    path.write_bytes(path.read_bytes()[:-20])
    assert isinstance(read_file(path, "text")[-1], BadRow)


# === Columns of the first file ===


def test_a_first_file_of_nulls_tells_nothing(tmp_path: Path) -> None:
    nulls, texts = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    nulls.write_text('{"text": null}\n' * 5)
    texts.write_text('{"text": "one"}\n{"text": "2020-01-05"}\n')
    paths = [str(nulls), str(texts)]
    assert load_all(source="json", train_files=paths, validation_fraction=0.5) == ["2020-01-05", "one"]
    with pytest.raises(UserError, match="holds null, not text"):
        open_training_texts(DataConfig(source="json", train_files=[str(nulls)]))


def test_one_number_among_texts_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"text": f"text {number}"} for number in range(300)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows[:200], {"text": 7}, *rows[200:]]))
    with pytest.raises(UserError, match=r"a\.jsonl, row 201: column 'text' holds 7, not text"):
        list(open_training_texts(DataConfig(source="json", train_files=[str(path)])))
