"""Files by URL give the rows of the same files on this machine, or one line that says why not."""

import bz2
import gzip
import json
import lzma
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from pyarrow import parquet

from tests.data.source_files import TEXTS, assert_refused, read
from tests.data.web import TOKEN, Fault, Site, running_site
from tests.tiny_run import Command
from tfmlm.config import Config, DataConfig
from tfmlm.config.load import dump_config
from tfmlm.data import prepare
from tfmlm.data.files import find_bad_row, read_rows
from tfmlm.data.prepare import explained_errors, prepare_data
from tfmlm.data.remote_files import identify_remote_file, open_remote_file
from tfmlm.data.sources import open_training_texts
from tfmlm.data.splitting import load_texts
from tfmlm.errors import UserError

pytestmark = pytest.mark.usefixtures("own_caches")


@pytest.fixture(autouse=True)
def memory() -> Iterator[MemoryFileSystem]:
    """The file system `memory://`, empty."""
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


@pytest.fixture
def site() -> Iterator[Site]:
    with running_site() as site:
        yield site


def write_parquet(texts: list[str]) -> bytes:
    content = pa.BufferOutputStream()
    parquet.write_table(pa.table({"n": range(len(texts)), "text": texts}), content, row_group_size=7)
    return content.getvalue().to_pybytes()


KINDS: dict[str, bytes] = {
    "csv": ("text\n" + "".join(f'"{text}"\n' for text in TEXTS)).encode(),
    "json": "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode(),
    "parquet": write_parquet(TEXTS),
    "text": "".join(f"{text}\n" for text in TEXTS).encode(),
}

SQUEEZE: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}

KINDS_SQUEEZED = [
    (kind, squeeze)
    for kind in KINDS
    for squeeze in SQUEEZE
    if (kind, squeeze) == (kind, "plain") or kind != "parquet"
]


def load(*files: str, **settings: object) -> list[str]:
    return read(open_training_texts(DataConfig(train_files=list(files), **{"source": "text"} | settings)))


def big_text() -> bytes:
    """More than fsspec asks for at once."""
    return b"".join(
        b"%d is a line of a file that is read in several parts\n" % number for number in range(200_000)
    )


# === What is read ===


@pytest.mark.parametrize(("kind", "squeeze"), KINDS_SQUEEZED)
@pytest.mark.parametrize("place", ["memory", "web", "file"])
def test_every_kind_is_read_as_it_is_here(
    place: str, kind: str, squeeze: str, site: Site, memory: MemoryFileSystem, tmp_path: Path
) -> None:
    content = SQUEEZE[squeeze](KINDS[kind])
    (tmp_path / "a").write_bytes(content)
    memory.pipe("/folder/a", content)
    url = {"memory": "memory://folder/a", "web": site.put("/a", content), "file": f"file://{tmp_path}/a"}[
        place
    ]
    assert load(url, source=kind) == load(str(tmp_path / "a"), source=kind) == TEXTS


@pytest.mark.parametrize("streaming", [False, True], ids=["packed", "streaming"])
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_are_those_of_local_files(
    kind: str, streaming: bool, config: Config, site: Site, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(KINDS[kind])

    def make_blocks(file: str) -> list[bytes]:
        data = replace(
            config.data, source=kind, train_files=[file], validation_files=[file], streaming=streaming
        )
        prepared = prepare_data(replace(config, data=data))
        return [
            chunk["input_ids"].tobytes()
            for blocks in (prepared.train, prepared.validation)
            for chunk in blocks.read_in_order().as_numpy_iterator()
        ]

    assert make_blocks(site.put("/a", KINDS[kind])) == make_blocks(str(tmp_path / "a"))


def test_globs_and_folders_where_files_are_listed(memory: MemoryFileSystem) -> None:
    for name in ("b.txt", "a.txt", "deep/er/c.txt", "other.csv", "a[1].log"):
        memory.pipe(f"/x/{name}", f"{name}\n".encode())
    assert load("memory://x/*.txt") == ["a.txt", "b.txt"]
    assert load("memory://x/**/*.txt", "memory://x/a.txt") == ["a.txt", "b.txt", "deep/er/c.txt"]
    assert load("memory://x", "memory://x/a.txt") == ["a.txt", "b.txt", "deep/er/c.txt"]
    assert load("memory://x/") == ["a.txt", "b.txt", "deep/er/c.txt"]
    assert load("memory://x/?.txt") == ["a.txt", "b.txt"]
    assert load("memory://x/a[1].log") == ["a[1].log"]


def test_a_glob_on_this_machine_by_its_url(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a\n")
    assert load(f"file://{tmp_path}/*.txt", str(tmp_path / "a.txt")) == ["a"]


def test_two_readers_of_one_file_in_memory_do_not_disturb_each_other(memory: MemoryFileSystem) -> None:
    memory.pipe("/a", KINDS["text"] * 5000)
    files = [open_remote_file("memory://a") for _ in range(2)]
    parts = zip(*(iter(lambda file=file: file.read(5000), b"") for file in files), strict=True)
    first, second = map(b"".join, zip(*parts, strict=True))
    assert first == second == KINDS["text"] * 5000


@pytest.mark.parametrize("knows", [{"ranges", "length"}, {"length"}], ids=["parts", "only whole"])
def test_a_large_file_is_read_whole(knows: set[str], site: Site) -> None:
    site.fault = Fault(knows=frozenset(knows))
    assert load(site.put("/big.txt", big_text())) == big_text().decode().splitlines()


def test_a_large_parquet_file_of_a_server_that_sends_no_parts(site: Site) -> None:
    site.fault = Fault(knows=frozenset({"length"}))
    texts = big_text().decode().splitlines()
    url = site.put("/big", write_parquet(texts))
    assert load(url, source="parquet") == texts


def test_nothing_is_compressed_on_the_way(site: Site) -> None:
    load(site.put("/a.txt", KINDS["text"]))
    assert {headers["Accept-Encoding"] for headers in site.headers} == {"identity"}


# === Bad rows ===


@pytest.mark.parametrize("kind", KINDS)
def test_bad_rows_are_those_of_a_local_file(kind: str, memory: MemoryFileSystem, tmp_path: Path) -> None:
    for content in (
        b"",
        KINDS[kind][:-20],
        KINDS[kind].replace(b"number 7", b"numb\xffr 7"),
        gzip.compress(KINDS[kind])[:-9],
    ):
        (tmp_path / "a").write_bytes(content)
        memory.pipe("/a", content)
        data = DataConfig(source=kind)
        local = [str(row).replace(str(tmp_path), "memory:/") for row in read_rows(str(tmp_path / "a"), data)]
        assert [str(row) for row in read_rows("memory://a", data)] == local


def test_a_bad_row_has_the_url_without_its_token(site: Site) -> None:
    url = site.put("/a.txt", b"good\nb\xff\n")
    row = find_bad_row([f"{url}?{TOKEN}"], DataConfig(source="text"))
    assert str(row) == f"{url}?token=…, row 2: not UTF-8 at character 2"


# === What cannot be read ===


@pytest.mark.parametrize(
    ("status", "says"), [(403, "403 Forbidden"), (404, "404 Not Found"), (500, "500 Internal")]
)
@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_is_none(status: int, says: str, kind: str, site: Site) -> None:
    url = site.put("/a", KINDS[kind])
    site.fault.status = status
    assert_refused(f"{url}?token=… cannot be read: {says}", source=kind, train_files=[f"{url}?{TOKEN}"])


@pytest.mark.parametrize("on_bad_rows", ["error", "skip"])
@pytest.mark.parametrize("knows", [{"ranges", "length"}, {"length"}], ids=["parts", "only whole"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_that_breaks_is_no_end_of_the_text(
    kind: str, knows: set[str], on_bad_rows: str, site: Site
) -> None:
    content = {
        "text": big_text(),
        "csv": b"text\n" + big_text(),
        "json": b'{"text": "a line of a row"}\n' * 300_000,
    }
    url = site.put(
        "/a", content[kind] if kind in content else write_parquet(big_text().decode().splitlines())
    )
    texts = open_training_texts(
        DataConfig(source=kind, train_files=[f"{url}?{TOKEN}"], on_bad_rows=on_bad_rows)
    )
    site.fault = Fault(knows=frozenset(knows), cut_after=len(site.files["/a"]) - 100)
    with pytest.raises(UserError, match=r"token=… cannot be read") as refusal:
        read(texts)
    assert "tellnobody" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_file_that_became_shorter(site: Site) -> None:
    url = site.put("/a", big_text())
    file = open_remote_file(url)
    file.read(1000)
    site.put("/a", big_text()[:1000])
    with pytest.raises(UserError, match=r"bytes: it ends there; check data.train_files"):
        file.read()


def test_a_server_that_does_not_answer(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=1e-6)
    monkeypatch.setitem(fsspec.config.conf, "http", {"client_kwargs": {"timeout": timeout}})
    assert_refused(
        "cannot be read: no answer in time", source="text", train_files=[site.put("/a", b"a\nb\n")]
    )


def test_a_server_that_tells_no_length(site: Site) -> None:
    site.fault = Fault(knows=frozenset())
    assert_refused("does not say how long it is", source="text", train_files=[site.put("/a", b"a\nb\n")])


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("gs://bucket/a.txt", "pip install gcsfs"),
        ("s3://bucket/*.txt", "pip install s3fs"),
        ("nothing://a.txt", "Protocol not known: nothing"),
        ("http://127.0.0.1:9/a.txt", "Cannot connect to host 127.0.0.1:9"),
        ("memory://none.txt", "no such file"),
        ("memory://none/*.txt", "no such file"),
        ("http://127.0.0.1:9/*.txt", "has wildcards, and HTTP lists no files"),
        ("http://127.0.0.1:9/a[0-9].txt?x=1", "has wildcards, and HTTP lists no files"),
        ("zip://*.txt::memory://a.zip", "zip://*.txt::memory://a.zip cannot be"),
    ],
)
def test_a_url_of_nothing(url: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for driver in ("gcsfs", "s3fs"):
        monkeypatch.setitem(sys.modules, driver, None)
    assert_refused(url, says, source="text", train_files=[url])


@pytest.mark.parametrize("pattern", ["memory://x", "memory://x/**/*.txt"])
def test_a_folder_that_cannot_be_listed_is_not_left_out(
    pattern: str, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def list_folder(self: MemoryFileSystem, path: str, **options: object) -> object:
        if path.strip("/") == "x/closed":
            raise PermissionError("closed to you")
        return usual(self, path, **options)

    usual = MemoryFileSystem.ls
    monkeypatch.setattr(MemoryFileSystem, "ls", list_folder)
    memory.pipe({"/x/a.txt": b"a\n", "/x/closed/b.txt": b"b\n"})
    assert_refused(f"{pattern} cannot be read: closed to you", source="text", train_files=[pattern])


def test_an_object_that_stands_for_its_folder_is_no_file(
    memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def list_folder(self: MemoryFileSystem, path: str, **options: object) -> object:
        itself = [{"name": f"{path}/", "type": "file"}, {"name": f"{path}/", "type": "directory"}]
        return [*usual(self, path, **options), *itself]

    usual = MemoryFileSystem.ls
    monkeypatch.setattr(MemoryFileSystem, "ls", list_folder)
    memory.pipe({"/x/a.txt": b"a\n", "/x/deep/b.txt": b"b\n"})
    assert load("memory://x") == load("memory://x/**") == ["a", "b"]


def test_a_glob_without_a_match(memory: MemoryFileSystem) -> None:
    memory.pipe("/x/a.txt", b"a\n")
    assert_refused("no text file matches 'memory://x/*.csv'", source="text", train_files=["memory://x/*.csv"])
    assert_refused("no csv file matches 'memory://x'", source="csv", train_files=["memory://x"])


def test_a_page_about_a_folder_is_no_text(site: Site) -> None:
    site.put("/folder/", b"<html>\n")
    assert_refused("is a folder, and HTTP lists no files", source="text", train_files=[f"{site.url}/folder/"])


# === Identity ===


@pytest.mark.parametrize("knows", [{"etag"}, {"time"}, set()], ids=str)
def test_a_file_that_changed_is_another(knows: set[str], site: Site) -> None:
    site.fault.knows = frozenset({"ranges", "length", *knows})
    url = site.put("/a", b"one")
    first = identify_remote_file(url)
    assert first == identify_remote_file(url)
    site.asked.clear()
    identify_remote_file(url)
    assert ("GET /a bytes=0-2" in site.asked) == (not knows)
    site.put("/a", b"two")
    site.times["/a"] = 100.0
    assert identify_remote_file(url) != first


def test_a_file_in_memory_that_changed_is_another(memory: MemoryFileSystem) -> None:
    memory.pipe("/a", b"one")
    first = identify_remote_file("memory://a")
    assert first == identify_remote_file("memory://a")
    memory.pipe("/a", b"two")
    assert identify_remote_file("memory://a") != first


def test_blocks_are_packed_anew_when_the_file_changed(
    config: Config, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = site.put("/a.txt", KINDS["text"])
    config = replace(config, data=replace(config.data, train_files=[url]))
    packed = []
    monkeypatch.setattr(
        prepare,
        "write_blocks",
        lambda blocks, path, write=prepare.write_blocks: packed.append(write(blocks, path)),
    )
    for _ in range(2):
        prepare_data(config)
        assert len(packed) == 2
    site.put("/a.txt", KINDS["text"].upper())
    prepare_data(config)
    assert len(packed) == 4


# === A run ===


@pytest.mark.parametrize("streaming", ["false", "true"])
def test_a_run_writes_no_token(streaming: str, command: Command, site: Site, tmp_path: Path) -> None:
    url = site.put("/a.txt", KINDS["text"] * 20)
    files = f"data.train_files=[{url}?{TOKEN}]"
    for _ in range(2):  # the second finds the first's result
        assert command("train", files, f"data.streaming={streaming}")[0] == 0
    assert command("prepare", files, "--output", str(tmp_path / "shards"))[0] == 0
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(
        b"token=\\u2026" in path.read_bytes() or "token=…".encode() in path.read_bytes() for path in written
    )
    assert [path for path in written if b"tellnobody" in path.read_bytes()] == []
    exit_code, line = command("evaluate", on=tmp_path / "run")
    assert exit_code == 2
    assert line.startswith(f"tfmlm: {url}?token=… is without its secret")
    assert command("evaluate", files, on=tmp_path / "run")[0] == 0


def test_a_connection_that_breaks_while_a_stream_trains(config: Config, site: Site) -> None:
    url = site.put("/a.txt", big_text())
    data = replace(config.data, train_files=[url], streaming=True, block_size=4096)
    prepared = prepare_data(replace(config, data=data))
    site.fault.cut_after = len(big_text()) - 100
    with pytest.raises(UserError, match="cannot be read after"), explained_errors(prepared):
        for _ in prepared.train.read_in_order():
            pass


@pytest.mark.parametrize("name", ["train", "prepare"])
def test_a_process_ends_in_one_line(name: str, config: Config, site: Site, tmp_path: Path) -> None:
    url = site.put("/a.txt", KINDS["text"])
    site.fault.status = 403
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    command = [sys.executable, "-m", "tfmlm", name, str(path), f"data.train_files=[{url}?{TOKEN}]"]
    if name == "prepare":
        command += ["--output", str(tmp_path / "shards")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        f"tfmlm: {url}?token=… cannot be read: 403 Forbidden; check"
    )
    assert "Traceback" not in done.stderr
    assert "tellnobody" not in done.stdout + done.stderr


def test_a_password_is_refused(command: Command) -> None:
    exit_code, line = command("train", "data.validation_files=['https://me:tellnobody@host/a.txt']")
    assert exit_code == 2
    assert "has a URL with a user or password; leave it out" in line
    assert "tellnobody" not in line


def test_a_forgotten_bracket_shows_no_token(command: Command) -> None:
    exit_code, line = command("train", f"data.train_files=https://host/a.txt?{TOKEN}")
    assert exit_code == 2
    assert "tellnobody" not in line


def test_texts_that_are_split_by_hash_are_the_same(site: Site, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(KINDS["text"])
    url = site.put("/a.txt", KINDS["text"])
    remote, local = (
        load_texts(DataConfig(source="text", train_files=[file], validation_fraction=0.3), seed=1)
        for file in (url, str(tmp_path / "a.txt"))
    )
    assert read(remote.train) == read(local.train)
    assert read(remote.validation) == read(local.validation)
