"""A server of three versions, and a headless Chromium that visits its page."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from playwright.sync_api import Browser, expect, sync_playwright
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from tests.pytorch_folder import write_hub_folder
from tests.serving.page.visits import Open, Visit
from tests.serving.server import Server, run_server, write_echo_export
from tests.tiny import TINY_CONFIGS
from tests.tiny_model import make_tiny
from tfmlm.config import ExportConfig
from tfmlm.export.saved_model import export_saved_model

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="package")
def exported(
    tmp_path_factory: pytest.TempPathFactory,
    word_tokenizer: BertTokenizerFast,
    byte_tokenizer: PreTrainedTokenizerFast,
) -> Path:
    """Versions: 1 writes masks as <mask>; 2 takes no texts; 3 writes masks as [MASK]."""
    tf.keras.utils.set_random_seed(0)  # else each run has other candidates to click
    folder = tmp_path_factory.mktemp("page")
    config = ExportConfig(dir=str(folder), text_signature="require")
    write_hub_folder(folder / "bytes", byte_tokenizer)
    export_saved_model(folder / "bytes", config, "tiny")
    write_echo_export(folder / "tiny/2")
    vocab_size = len(word_tokenizer)
    make_tiny("bert", vocab_size=vocab_size, **TINY_CONFIGS["bert"]).save_pretrained(folder / "words")
    word_tokenizer.save_pretrained(folder / "words")
    export_saved_model(folder / "words", config, "tiny")
    return folder / "tiny"


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
