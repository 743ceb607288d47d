"""The docstrings of installed packages as a source: each once, in order, parsed again only after a change."""

import os
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.data.source_files import load_all
from tests.waiting import WAIT_SECONDS
from tfmlm.data import installed_docs

pytestmark = pytest.mark.usefixtures("own_caches")


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


@pytest.mark.parametrize("num_proc", [1, 2])
@pytest.mark.parametrize("is_file", [True, False])
def test_a_script_without_a_main_guard(num_proc: int, is_file: bool, tmp_path: Path) -> None:
    """As notebooks and people's scripts are; also one that a shell pipes in."""
    module = tmp_path / "module.py"
    write_module(module, f"A: {LONG}", f"B: {LONG}")
    text = (
        "from pathlib import Path\nfrom tfmlm.data.installed_docs import read_docstrings\n"
        f"print(len(read_docstrings([Path({str(module)!r})], {num_proc})))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(text)
    command = [sys.executable, str(script) if is_file else "-"]
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False
    )
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
