"""The page offers the versions that are served, each with what it takes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.preview.page.visits import TEXT, Open, ask, fill, read_scores
from tests.preview.server import Server, run_server
from tests.tiny import TINY_CONFIGS
from tests.waiting import wait_until

pytestmark = pytest.mark.long


def test_the_page_is_told_what_each_version_takes(server: Server) -> None:
    status, model = server.ask_path("/page/model.json")
    assert (status, model["name"]) == (200, "tiny")
    assert [version["version"] for version in model["versions"]] == ["3", "2", "1"]
    assert [version["mask_token"] for version in model["versions"]] == ["[MASK]", None, "<mask>"]
    assert [version["text_signature"] for version in model["versions"]] == [True, False, True]
    assert [version["top_k"] for version in model["versions"]] == [5, None, 5]
    assert model["versions"][0]["max_length"] == TINY_CONFIGS["bert"]["max_position_embeddings"]


def test_switching_the_version_changes_the_answers(visit: Open, server: Server) -> None:
    page = visit().open(server)
    fill(page, TEXT)
    newest = read_scores(page)
    page.get_by_role("list").get_by_role("button").first.click()
    page.get_by_label("Version").select_option("1")
    expect(page.get_by_role("status")).to_contain_text("Version 1 answered in")
    text = TEXT.replace("[MASK]", "<mask>")
    assert page.get_by_label("A sentence with a mask").input_value() == text
    assert read_scores(page) == ask(server, text, 1)["scores"][0] != newest
    expect(page.get_by_role("button", name="Insert <mask>")).to_be_enabled()
    page.get_by_label("Version").select_option("3")
    expect(page.get_by_role("status")).to_contain_text("Version 3 answered in")
    assert read_scores(page) == newest


def test_a_version_without_texts_says_how_to_export_one(visit: Open, server: Server) -> None:
    page = visit().open(server)
    page.get_by_label("Version").select_option("2")
    expect(page.get_by_role("status")).to_contain_text("tfmlm export RUN export.text_signature=require")
    expect(page.get_by_role("button", name="Fill", exact=True)).to_be_disabled()
    expect(page.get_by_role("listitem")).to_have_count(0)
    page.get_by_label("Version").select_option("1")
    expect(page.get_by_role("listitem")).to_have_count(5)


@pytest.mark.long
def test_follows_the_server(visit: Open, exported: Path, tmp_path: Path) -> None:
    served = tmp_path / "one"
    shutil.copytree(exported / "1", served / "1")
    flags = ("--keep-versions", "1", "--max-body-bytes", "2000")
    with run_server(served, *flags) as server:
        made = visit()
        page = made.open(server)
        expect(page.get_by_role("status")).to_contain_text("Version 1 answered in")
        expect(page.get_by_role("combobox")).to_have_count(0)
        assert page.locator("#version").inner_text().split() == ["Version", "1"]

        fill(page, "Return the <mask>. " * 200)
        expect(page.get_by_role("status")).to_have_text("the request is larger than 2000 bytes")

        shutil.copytree(exported / "3", tmp_path / "3")
        (tmp_path / "3").rename(served / "3")
        wait_until(
            lambda: server.ask("/versions/1")[1].get("model_version_status", [{}])[0].get("state") == "END"
        )
        fill(page, TEXT.replace("[MASK]", "<mask>"))
        expect(page.get_by_role("status")).to_contain_text("Version 3 answered in")
        np.testing.assert_allclose(read_scores(page), ask(server, TEXT, 3)["scores"][0], atol=1e-6)

        assert server.stop() == 0
        page.get_by_role("button", name="Fill", exact=True).click()
        expect(page.get_by_role("status")).to_have_text(
            "The server does not answer. Is tfmlm serve still running?"
        )
        expect(page.get_by_role("listitem")).to_have_count(0)
        # The browser reports each of these three by itself.
        assert [text.split(": ")[1][:60] for text in made.complaints] == [
            "the server responded with a status of 413 (Request Entity To",
            "the server responded with a status of 404 (Not Found)",
            "net::ERR_CONNECTION_REFUSED",
        ]
        made.complaints.clear()
