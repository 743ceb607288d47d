"""A server of three versions, and a headless Chromium that visits its page."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.finished import Finished
from tests.preview.page.visits import Open, Visit
from tests.preview.server import Server, run_server, write_echo_export

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="package")
def exported(tmp_path_factory: pytest.TempPathFactory, byte_run: Finished, word_run: Finished) -> Path:
    """Versions: 1 writes masks as <mask>; 2 takes no texts; 3 writes masks as [MASK]."""
    folder = tmp_path_factory.mktemp("page") / "tiny"
    shutil.copytree(byte_run.version, folder / "1")
    write_echo_export(folder / "2")
    shutil.copytree(word_run.version, folder / "3")
    return folder


@pytest.fixture(scope="package")
def server(exported: Path) -> Iterator[Server]:
    with run_server(exported, "--keep-versions", "3") as running:
        yield running
        assert running.stop() == 0


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("the page is tested in Chromium, and there is no `chromium` on PATH")
    expect.set_options(timeout=20_000)
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=path, args=FLAGS) as opened,
    ):
        yield opened


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """Makes visits; they must end without a complaint, and may ask the page's own server alone."""
    visits: list[Visit] = []

    def make(**settings: Any) -> Visit:
        page = browser.new_context(**settings).new_page()
        page.set_default_timeout(20_000)
        made = Visit(page)
        page.on("request", made.note_request)
        page.on("requestfailed", made.note_failure)
        page.on("console", made.note_message)
        page.on("pageerror", lambda error: made.complaints.append(str(error)))
        visits.append(made)
        return made

    yield make
    for each in visits:
        host = "/".join(each.page.url.split("/")[:3]) + "/"
        each.page.context.close()
        assert each.requests
        assert [request.url for request in each.requests if not request.url.startswith(host)] == []
        assert each.complaints == []
