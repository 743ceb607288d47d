"""Arrow streams and Feather: the same rows as a row at a time, damaged files in one line, bounded memory."""

import io
import struct
import subprocess
import sys
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import feather, ipc

from tests.data.source_files import ROW_TEXTS, assert_refused, load_all, number_bad_rows, read_file, texts_of
from tests.folders import CHECKOUT
from tfmlm.config import DataConfig
from tfmlm.data import arrow_files, files
from tfmlm.data.arrow_files import count_rows
from tfmlm.data.files import BadRow, read_rows

pytestmark = pytest.mark.usefixtures("own_caches")

FORMATS = ("stream", "file", "feather", "feather lz4", "feather zstd", "stream zstd")


def write_arrow(table: pa.Table, form: str, rows_a_batch: int = 7) -> bytes:
    content = io.BytesIO()
    kind, _, codec = form.partition(" ")
    if kind == "feather":
        feather.write_feather(table, content, codec or "uncompressed", chunksize=rows_a_batch)
    else:
        options = ipc.IpcWriteOptions(compression=codec or None)
        make = ipc.new_stream if kind == "stream" else ipc.new_file
        with make(content, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=rows_a_batch)
    return content.getvalue()


def text_arrays(texts: list[str | None]) -> dict[str, pa.Array]:
    """The same texts in every type that may hold them."""
    words = [None if text is None else text.split(" ") for text in texts]
    plain = pa.array(texts, pa.string())
    return {
        "string": plain,
        "large": plain.cast(pa.large_string()),
        "view": plain.cast(pa.string_view()),
        "dictionary": plain.dictionary_encode(),
        "list": pa.array(words, pa.list_(pa.string())),
        "list of dictionary": pa.array(words, pa.list_(pa.dictionary(pa.int8(), pa.string()))),
        "struct": pa.array([{"body": text, "n": 1} for text in texts]),
    }


texts = st.lists(
    st.none() | st.sampled_from(["", " ", "a b", "\u00e9"]) | st.text("ab \n", max_size=9), max_size=30
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all of hypothesis's examples."""
    return tmp_path_factory.mktemp("arrow")


@pytest.mark.parametrize("form", FORMATS)
@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(texts=texts, rows_a_batch=st.integers(1, 9), most=st.sampled_from([3, 2**24]))
def test_every_type_and_format_gives_the_same_rows(
    form: str, texts: list[str | None], rows_a_batch: int, most: int, folder: Path
) -> None:
    expected = [text or "" for text in texts]
    for name, column in text_arrays(texts).items():
        path = folder / "a.arrow"
        table = pa.table({"other": list(range(len(texts))), "text": column})
        path.write_bytes(write_arrow(table, form, rows_a_batch))
        assert count_rows(str(path)) == len(texts)
        data = DataConfig(
            source="arrow", text_column="text.body" if name == "struct" else "text", max_text_bytes=most
        )
        rows = list(read_rows(str(path), data))
        assert len(rows) == len(texts)
        for number, (row, text) in enumerate(zip(rows, expected, strict=True), 1):
            # In a list no empty string counts, so that blanks may go.
            joined = " ".join(filter(None, text.split(" "))) if name.startswith("list") else text
            if len(joined.encode()) > most:
                assert isinstance(row, BadRow)
                assert (row.row, "more than 3 bytes" in row.reason) == (number, True)
            else:
                assert row == joined


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dictionary", [False, True])
def test_files_of_other_machines_and_folders(form: str, dictionary: bool, tmp_path: Path) -> None:
    column = pa.array(ROW_TEXTS)
    table = pa.table({"text": column.dictionary_encode() if dictionary else column})
    content = write_arrow(table, form)
    memory = fsspec.filesystem("memory")
    memory.pipe("/arrow/a.arrow", content)
    assert load_all(source="arrow", train_files=["memory://arrow/a.arrow"]) == sorted(ROW_TEXTS)
    memory.rm("/arrow", recursive=True)
    (tmp_path / "a.feather").write_bytes(content)
    (tmp_path / "b.arrow").write_bytes(write_arrow(table.slice(0, 0), form))
    assert load_all(source="arrow", train_files=[str(tmp_path)]) == sorted(ROW_TEXTS)
    assert load_all(source="arrow", train_files=[str(tmp_path)], streaming=True) == sorted(ROW_TEXTS)


# === Damage ===


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_cut_anywhere_gives_its_first_rows_and_one_bad_row(form: str, tmp_path: Path) -> None:
    """Arrow takes a stream that was cut between two batches for a whole one."""
    content = write_arrow(pa.table({"text": ROW_TEXTS}), form)
    path = tmp_path / "a.arrow"
    for end in range(0, len(content), 4):
        path.write_bytes(content[:end])
        *rows, last = read_file(path, "arrow")
        assert rows == ROW_TEXTS[: len(rows)]
        assert isinstance(last, BadRow)
        assert (last.row, "\n" in last.reason) == (len(rows) + 1, False)


def test_more_after_the_end_is_not_passed_over(tmp_path: Path) -> None:
    content = write_arrow(pa.table({"text": ROW_TEXTS}), "stream")
    path = tmp_path / "a.arrow"
    path.write_bytes(content + content)
    assert number_bad_rows(read_file(path, "arrow")) == {21: f"{len(content):,} bytes follow its end"}


@pytest.mark.parametrize("form", FORMATS)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_bytes_that_changed_end_in_rows_or_bad_rows(form: str, data: st.DataObject, folder: Path) -> None:
    """A stranger's offsets must not make Arrow read elsewhere in memory."""
    column = pa.array(ROW_TEXTS)
    as_views = column.cast(pa.string_view())
    table = pa.table(
        {"text": column.dictionary_encode(), "other": as_views, "lists": [[text] for text in ROW_TEXTS]}
    )
    content = bytearray(write_arrow(table, form))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(8, len(content) - 1))
        content[place] = data.draw(st.sampled_from([0, 1, 127, 128, 255]) | st.integers(0, 255))
    (folder / "a.arrow").write_bytes(content)
    name = data.draw(st.sampled_from(["text", "other", "lists"]))
    for row in read_file(folder / "a.arrow", "arrow", text_column=name):
        assert "\n" not in str(row)


def test_bad_bytes_in_one_row(tmp_path: Path) -> None:
    values = [b"bad \xff" if number == 1500 else b"good %d" % number for number in range(2500)]
    table = pa.table({"text": pa.array(values, pa.binary()).view(pa.string())})
    (tmp_path / "a.arrow").write_bytes(write_arrow(table, "stream", 2500))
    items = read_file(tmp_path / "a.arrow", "arrow")
    assert list(number_bad_rows(items)) == [1501]
    assert texts_of(items) == [f"good {number}" for number in range(2500) if number != 1500]


@pytest.mark.parametrize(
    ("source", "content", "says"),
    [
        ("text", write_arrow(pa.table({"text": ["a"]}), "stream"), "is Arrow; set data.source=arrow"),
        ("json", write_arrow(pa.table({"text": ["a"]}), "file"), "is Arrow; set data.source=arrow"),
        ("arrow", b"PAR1" + bytes(30), "is Parquet; set data.source=parquet"),
        ("arrow", b"FEA1" + bytes(30), "is Feather of version 1; write it again"),
        ("arrow", b"\x1f\x8b" + bytes(30), "is compressed as a whole; unpack it"),
        ("arrow", b"no Arrow", "arrow file cannot be read"),
        ("arrow", write_arrow(pa.table({"n": [1]}), "stream"), "'text' does not exist; the columns are: n"),
        ("arrow", write_arrow(pa.table({"text": [1]}), "stream"), "holds int64, not text"),
        ("arrow", write_arrow(pa.table({"text": pa.array([], pa.string())}), "stream"), "holds no row"),
    ],
)
def test_what_is_no_arrow_or_no_text(source: str, content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    assert_refused(says, source=source, train_files=[str(path)])


# === Memory ===


def test_a_batch_that_would_take_all_memory_is_left_out_by_its_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrow_files, "_MOST_BYTES", 5000)
    texts = ["a" * 2000 if 7 <= number < 14 else f"text {number}" for number in range(20)]
    path = tmp_path / "a.arrow"
    path.write_bytes(write_arrow(pa.table({"text": texts}), "stream zstd"))
    items = read_file(path, "arrow")
    assert list(number_bad_rows(items)) == list(range(8, 15))
    assert "its batch 2 takes 14," in str(items[7])
    assert [items[0], items[14]] == ["text 0", "text 14"]
    path.write_bytes(write_arrow(pa.table({"text": texts}), "stream"))
    assert read_file(path, "arrow") == texts


def test_a_batch_of_rows_without_end_is_not_gone_through(tmp_path: Path) -> None:
    num_rows = struct.pack("<q", 3001)
    content = write_arrow(pa.table({"text": pa.nulls(3001)}), "stream", 3001)
    path = tmp_path / "a.arrow"
    path.write_bytes(content.replace(num_rows, struct.pack("<q", 2**60)))
    assert number_bad_rows(read_file(path, "arrow")) == {
        1: "its batch 1 claims 1,152,921,504,606,846,976 rows"
    }


@pytest.mark.parametrize("kind", ["dictionary", "view", "large"])
def test_long_texts_come_a_few_at_a_time(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_BATCH_BYTES", 2000)
    texts = ["a" * 900, "b"] * 50
    path = tmp_path / "a.arrow"
    path.write_bytes(write_arrow(pa.table({"text": text_arrays(texts)[kind]}), "stream", 100))
    batches = list(files.read_batches(str(path), DataConfig(source="arrow")))
    assert [text for batch in batches for text in batch] == texts
    assert max(sum(map(len, batch)) for batch in batches) <= 2000 + 900


@pytest.mark.long
@pytest.mark.parametrize("form", ["stream", "feather zstd"])
def test_memory_does_not_grow_with_a_file_or_a_row(form: str, tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    texts = pa.array(["a b c d " * 2**17] * 400 + ["a" * 2**28])
    path.write_bytes(write_arrow(pa.table({"text": texts}), form, 50))
    del texts
    code = (
        "from tests.memory import read_peak\nfrom tfmlm.config import DataConfig\n"
        "from tfmlm.data.files import read_batches\nbefore = read_peak()\n"
        f"batches = read_batches({str(path)!r}, DataConfig(source='arrow'))\n"
        "assert sum(not isinstance(row, str) for rows in batches for row in rows) == 1\n"
        "print(read_peak() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CHECKOUT
    )
    # What is mapped counts while there is room; of what is decompressed, a batch at a time.
    assert int(done.stdout) * 1024 < path.stat().st_size + 1.5 * 2**28
