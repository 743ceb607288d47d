"""The page of `tfmlm serve` in a headless Chromium."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from tests.pytorch_folder import write_hub_folder
from tests.serving import Server, run_server, write_echo_export
from tests.test_heads import make_tiny
from tests.tiny import TINY_CONFIGS
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
TEXT = "Return the [MASK] of the given array."
TWO_MASKS = "Load the [MASK] of the given [MASK], if it exists."


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def server(exported: Path) -> Iterator[Server]:
    with run_server(exported, "--keep-versions", "3") as running:
        yield running
        assert running.stop() == 0


@pytest.fixture(scope="module")
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


@dataclass
class Visit:
    """A page in a context of its own, what it asked for, and what the browser complained of."""

    page: Page
    requests: list[Request] = field(default_factory=list)
    aborted: list[Request] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def note_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    # Playwright sets attributes on a handler, which a list's own `append` does not take.
    def note_request(self, request: Request) -> None:
        self.requests.append(request)

    def note_failure(self, request: Request) -> None:
        self.aborted.append(request)

    def open(self, server: Server) -> Page:
        self.page.goto(f"http://{server.rest}/")
        return self.page


Open = Callable[..., Visit]


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


def ask(server: Server, text: str, version: int) -> dict[str, Any]:
    body = {"signature_name": "text", "inputs": {"texts": [text]}}
    status, answer = server.ask(f"/versions/{version}:predict", body)
    assert status == 200
    outputs: dict[str, Any] = answer["outputs"]
    return outputs


def fill(page: Page, text: str) -> None:
    """Types a text, and waits for its candidates."""
    page.get_by_label("A sentence with a mask").fill(text)
    with page.expect_response("**:predict"):
        page.get_by_role("button", name="Fill", exact=True).click()
    expect(page.locator("#results")).to_have_attribute("aria-busy", "false")


def read_scores(page: Page) -> list[list[float]]:
    return [
        [float(button.get_attribute("data-score") or "nan") for button in group.get_by_role("button").all()]
        for group in page.get_by_role("list").all()
    ]


def continues_a_word(token: str) -> bool:
    return token.startswith("##") and bool(token.strip("#"))


def describe(token: str) -> str:
    return "…" + token[2:] if continues_a_word(token) else token.strip()


def put_after_a_word(token: str) -> str:
    return token[2:] if continues_a_word(token) else f" {token}"


def test_shows_the_model_and_answers_the_example(visit: Open, server: Server) -> None:
    page = visit().open(server)
    expect(page.get_by_role("heading", name="tiny")).to_be_visible()
    assert page.title() == "tiny: fill in the mask"
    assert page.get_by_label("Version").get_by_role("option").all_inner_texts() == ["3 (newest)", "2", "1"]
    expect(page.get_by_role("listitem")).to_have_count(5)
    assert page.get_by_label("A sentence with a mask").input_value() == "The [MASK] of the model to load."
    expect(page.get_by_role("status")).to_contain_text("Version 3 answered in")


def test_the_page_is_told_what_each_version_takes(server: Server) -> None:
    status, model = server.ask_path("/page/model.json")
    assert (status, model["name"]) == (200, "tiny")
    assert [version["version"] for version in model["versions"]] == ["3", "2", "1"]
    assert [version["mask_token"] for version in model["versions"]] == ["[MASK]", None, "<mask>"]
    assert [version["text_signature"] for version in model["versions"]] == [True, False, True]
    assert [version["top_k"] for version in model["versions"]] == [5, None, 5]
    assert model["versions"][0]["max_length"] == TINY_CONFIGS["bert"]["max_position_embeddings"]


def test_probabilities_are_those_of_the_rest_interface(visit: Open, server: Server) -> None:
    page = visit().open(server)
    for text, num_masks in ((TEXT, 1), (TWO_MASKS, 2)):
        fill(page, text)
        outputs = ask(server, text, 3)
        expect(page.get_by_role("list")).to_have_count(num_masks)
        scores = read_scores(page)
        assert scores == outputs["scores"][0]
        assert page.locator(".word").all_inner_texts() == [
            describe(token) for mask in outputs["tokens"][0] for token in mask
        ]
        wanted = [score for mask in scores for score in mask]
        # A bar may be growing still, and is never thinner than can be seen.
        page.wait_for_timeout(400)
        shares = page.locator(".bar").evaluate_all(
            "bars => bars.map(bar => bar.getBoundingClientRect().width / bar.parentElement.clientWidth)"
        )
        assert shares == pytest.approx(wanted, abs=0.01)


def test_a_click_fills_the_mask_and_another_takes_its_place(visit: Open, server: Server) -> None:
    page = visit().open(server)
    fill(page, TWO_MASKS)
    sentence = page.get_by_label("A sentence with a mask")
    lists = page.get_by_role("list")
    tokens = ask(server, TWO_MASKS, 3)["tokens"][0]

    def button(mask: int, candidate: int) -> Any:
        return lists.nth(mask).get_by_role("button").nth(candidate)

    def filled(first: str, second: str) -> str:
        return f"Load the{put_after_a_word(first)} of the given{put_after_a_word(second)}, if it exists."

    button(1, 0).click()
    assert sentence.input_value() == filled("[MASK]", tokens[1][0])
    button(1, 1).click()
    assert sentence.input_value() == filled("[MASK]", tokens[1][1])
    expect(button(1, 0)).to_have_attribute("aria-pressed", "false")
    expect(button(1, 1)).to_have_attribute("aria-pressed", "true")
    button(0, 0).click()
    assert sentence.input_value() == filled(tokens[0][0], tokens[1][1])
    button(1, 1).click()
    assert sentence.input_value() == filled(tokens[0][0], "[MASK]")


def test_with_the_keyboard_alone(visit: Open, server: Server) -> None:
    page = visit().open(server)
    expect(page.get_by_role("listitem")).to_have_count(5)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "versions"
    page.keyboard.press("Tab")
    page.keyboard.press("Control+A")
    page.keyboard.type("Write the ")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.type(" name.")
    assert page.get_by_label("A sentence with a mask").input_value() == "Write the [MASK] name."
    with page.expect_response("**:predict"):
        page.keyboard.press("Control+Enter")
    outputs = ask(server, "Write the [MASK] name.", 3)
    expect(page.locator(".candidate").first).to_have_attribute("data-score", str(outputs["scores"][0][0][0]))
    for _ in range(3):
        page.keyboard.press("Tab")
    outline, label = page.evaluate(
        "[getComputedStyle(document.activeElement).outlineStyle, document.activeElement.ariaLabel]"
    )
    token = outputs["tokens"][0][0][0]
    assert outline == "solid"
    assert label == page.locator(".word").first.inner_text() + " " + page.locator(".share").first.inner_text()
    page.keyboard.press("Space")
    expected = f"Write the{put_after_a_word(token)} name."
    assert page.get_by_label("A sentence with a mask").input_value() == expected
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Control+End")
    page.keyboard.press("Shift+Enter")
    assert page.get_by_label("A sentence with a mask").input_value() == expected + "\n"


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


def test_a_sentence_is_text_and_nothing_else(visit: Open, server: Server) -> None:
    page = visit().open(server)
    text = "<script>window.bad = 1</script><img src=x onerror='bad()'> \"[MASK]\" & [MASK]&amp;"
    fill(page, text)
    assert ask(server, text, 3)["positions"][0][1] > 0
    expect(page.get_by_role("list")).to_have_count(2)
    assert page.evaluate("window.bad") is None
    assert page.locator("main script, main img").count() == 0
    shown = page.locator("section").nth(1).get_by_role("paragraph").inner_text()
    assert shown == "… 1</script><img src=x onerror='bad()'> \"[MASK]\" & [MASK]&amp;"


def test_what_was_edited_cannot_be_filled_in(visit: Open, server: Server) -> None:
    page = visit().open(server)
    fill(page, TEXT)
    button = page.locator(".candidate").first
    page.get_by_label("A sentence with a mask").press_sequentially("x")
    expect(button).to_be_disabled()
    page.get_by_label("A sentence with a mask").press("Backspace")
    expect(button).to_be_enabled()


def test_notes_of_the_export_are_shown(visit: Open, server: Server) -> None:
    page = visit().open(server)
    fill(page, "nothing to fill in")
    expect(page.get_by_role("status")).to_have_text("No [MASK] in it.")
    expect(page.get_by_role("listitem")).to_have_count(0)
    fill(page, "[MASK] " * 17)
    expect(page.get_by_role("status")).to_contain_text("Only the first 16 masks are answered. Version 3")
    expect(page.get_by_role("list")).to_have_count(16)
    # The model may take a mask for the likeliest word.
    page.get_by_role("list").last.get_by_role("button").filter(has_not_text="[MASK]").first.click()
    assert page.get_by_label("A sentence with a mask").input_value().count("[MASK]") == 16


def test_a_new_request_ends_the_one_before(visit: Open, server: Server) -> None:
    made = visit()
    page = made.open(server)
    fill(page, TEXT)
    made.aborted.clear()
    page.evaluate(
        """([first, second]) => {
            for (const text of [first, second]) {
                document.getElementById("sentence").value = text;
                document.getElementById("form").requestSubmit();
            }
        }""",
        [TEXT, TWO_MASKS],
    )
    expect(page.get_by_role("list")).to_have_count(2)
    expect(page.locator("#results")).to_have_attribute("aria-busy", "false")
    np.testing.assert_allclose(read_scores(page), ask(server, TWO_MASKS, 3)["scores"][0], atol=1e-6)
    assert [request.failure for request in made.aborted] == ["net::ERR_ABORTED"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_screens_and_colour_schemes(visit: Open, server: Server, scheme: str) -> None:
    page = visit(viewport={"width": 320, "height": 640}, color_scheme=scheme).open(server)
    fill(page, "a" * 200 + f" {TWO_MASKS}")
    expect(page.get_by_role("list")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    for button in page.get_by_role("button").all():
        box = button.bounding_box()
        assert box
        assert box["height"] >= 44
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 320
    page.get_by_label("Version").select_option("2")
    expect(page.get_by_role("status")).to_contain_text("export.text_signature=require")
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in ground.removeprefix("rgb(").rstrip(")").split(", ")) / 3
    assert (brightness > 128) == (scheme == "light")


@pytest.mark.parametrize(
    ("text", "mask", "token", "filled"),
    [
        ("the <mask> of", "<mask>", " name", "the name of"),
        ("the<mask> of", "<mask>", " name", "the name of"),
        ("<mask> of", "<mask>", " Name", "Name of"),
        ("un<mask>", "<mask>", "known", "unknown"),
        ("token [MASK].", "[MASK]", "##izer", "tokenizer."),
        ("a [MASK] b", "[MASK]", "##", "a ## b"),
        ("a[MASK]b", "[MASK]", "\n", "a\nb"),
    ],
)
def test_words_are_joined(visit: Open, server: Server, text: str, mask: str, token: str, filled: str) -> None:
    page = visit().open(server)
    script = """async ([text, mask, token]) => {
        const { divide, compose } = await import("/page/sentence.js");
        return compose(divide(text, mask, 1), [{ token }], mask);
    }"""
    assert page.evaluate(script, [text, mask, token]) == filled


@pytest.mark.slow
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
        deadline = time.monotonic() + 60
        while server.ask("/versions/1")[1].get("model_version_status", [{}])[0].get("state") != "END":
            assert time.monotonic() < deadline
            time.sleep(0.2)
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
