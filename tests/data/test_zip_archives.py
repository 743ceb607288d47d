"""A zip archive is read as the folder that was packed."""

import gzip
import io
import json
import zipfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from pyarrow import ipc, parquet

from tests.data.source_files import ROW_TEXTS, assert_refused, load_all, read
from tests.data.web import running_site
from tfmlm.config import DataConfig
from tfmlm.data.sources import open_training_texts
from tfmlm.errors import UserError

pytestmark = pytest.mark.usefixtures("own_caches")


def pack(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, part in files.items():
            archive.writestr(name, part)
    return content.getvalue()


def load(*files: str, **settings: object) -> list[str]:
    return read(open_training_texts(DataConfig(train_files=list(files), **{"source": "text"} | settings)))


def write_parquet(texts: list[str]) -> bytes:
    content = io.BytesIO()
    parquet.write_table(pa.table({"text": texts}), content)
    return content.getvalue()


def write_arrow(texts: list[str]) -> bytes:
    content = io.BytesIO()
    table = pa.table({"text": texts})
    with ipc.new_file(content, table.schema) as writer:
        writer.write_table(table)
    return content.getvalue()


KINDS = {
    "csv": lambda texts: ("text\n" + "".join(f"{text}\n" for text in texts)).encode(),
    "json": lambda texts: json.dumps([{"text": text} for text in texts]).encode(),
    "parquet": write_parquet,
    "arrow": write_arrow,
    "text": lambda texts: "\n".join(texts).encode(),
}
SUFFIXES = {"text": "txt"}


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
@pytest.mark.parametrize("kind", KINDS)
def test_its_files_are_read_in_order_and_others_are_not(kind: str, method: int, tmp_path: Path) -> None:
    suffix = SUFFIXES.get(kind, kind)
    files = {
        f"deep/b.{suffix}": KINDS[kind](ROW_TEXTS[7:]),
        "README": b"no text",
        f"__MACOSX/._a.{suffix}": b"no text",
        f"a #1.{suffix}": KINDS[kind](ROW_TEXTS[:7]),
        f"deep/.hidden.{suffix}": b"no text",
    }
    path = tmp_path / "a b.zip"
    path.write_bytes(pack(files, method))
    assert load(str(path), source=kind) == ROW_TEXTS
    assert load(str(tmp_path), source=kind) == ROW_TEXTS
    assert load(str(path), source=kind, streaming=True, on_bad_rows="skip") == ROW_TEXTS
    assert load_all(source=kind, train_files=[str(path)]) == sorted(ROW_TEXTS)


def test_files_in_it_may_be_compressed_and_a_single_one_has_any_name(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(pack({"a.txt.gz": gzip.compress(b"one\ntwo")}))
    assert load(str(path)) == ["one", "two"]
    path.write_bytes(pack({"log.2026-01-05": b"three\nfour"}))
    assert load(str(path)) == ["three", "four"]
    path.write_bytes(pack({"one.log": b"three", "two.log": b"four"}))
    with pytest.raises(UserError, match=r"no text file matches .*a\.zip"):
        load(str(path))


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_an_archive_elsewhere(tmp_path: Path) -> None:
    content = pack({"a.txt": b"one", "b.txt": b"two"})
    memory = fsspec.filesystem("memory")
    memory.pipe("/zips/a.zip", content)
    assert load("memory://zips/a.zip") == ["one", "two"]
    assert load("memory://zips") == ["one", "two"]
    memory.rm("/zips", recursive=True)
    with running_site() as site:
        site.files["/a.zip"] = content
        texts = load_all(
            source="text", train_files=[f"{site.url}/a.zip?token=secret123"], validation_fraction=0.5
        )
        assert texts == ["one", "two"]
        site.files["/a.zip"] = pack({"a.txt": b"good\nbad \xff"})
        with pytest.raises(UserError) as refusal:
            load(f"{site.url}/a.zip?token=secret123")
        assert "a.zip?token=\u2026, row 2: not UTF-8" in str(refusal.value)
        assert "secret123" not in str(refusal.value)


def test_another_archive_of_the_same_name_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    for texts in (list("abcdefgh"), list("ijklmnop")):
        path.write_bytes(pack({"a.txt": "\n".join(texts).encode()}))
        assert load_all(source="text", train_files=[str(path)], validation_fraction=0.5) == texts


def test_a_bad_row_in_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(pack({"a.txt": b"good\nbad \xff\ngood"}))
    assert_refused(f"zip://a.txt::{path}, row 2: not UTF-8", source="text", train_files=[str(path)])
    assert load(str(path), on_bad_rows="skip") == ["good", "good"]


@pytest.mark.parametrize(
    "name", ["../a.txt", "/etc/a.txt", "a::file:///etc/hostname.txt", "file://b.txt", "a*.txt", "a\\b.txt"]
)
def test_a_name_that_may_lead_out_of_it_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(pack({name: b"text"}))
    assert_refused("holds a file of the name", source="text", train_files=[str(path)])


def test_broken_and_locked_archives(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    content = pack({"a.txt": "\n".join(ROW_TEXTS * 200).encode()})
    for broken in (content[:-30], b"", b"no zip"):
        path.write_bytes(broken)
        assert_refused("a.zip cannot be read", source="text", train_files=[str(path)])
    changed = bytearray(content)
    changed[60] ^= 255
    path.write_bytes(changed)
    with pytest.raises(UserError, match=r"a\.zip cannot be read"):
        load(str(path))
    locked = bytearray(pack({"a.txt": b"a"}))
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(locked)
    assert_refused("is encrypted; unpack it", source="text", train_files=[str(path)])
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as archive:
        archive.writestr("a.txt", b"a")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.txt", b"b")
    path.write_bytes(twice.getvalue())
    assert_refused("'a.txt', and more than once", source="text", train_files=[str(path)])
