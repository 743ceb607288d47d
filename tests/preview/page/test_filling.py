"""The page fills masks as the REST interface does, by mouse and by keyboard."""

from typing import Any

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.preview.page.visits import (
    TEXT,
    TWO_MASKS,
    Open,
    ask,
    describe,
    fill,
    put_after_a_word,
    read_scores,
)
from tests.preview.server import Server

pytestmark = pytest.mark.long


def test_shows_the_model_and_answers_the_example(visit: Open, server: Server) -> None:
    page = visit().open(server)
    expect(page.get_by_role("heading", name="tiny")).to_be_visible()
    assert page.title() == "tiny: fill in the mask"
    assert page.get_by_label("Version").get_by_role("option").all_inner_texts() == ["3 (newest)", "2", "1"]
    expect(page.get_by_role("listitem")).to_have_count(5)
    assert page.get_by_label("A sentence with a mask").input_value() == "The [MASK] of the model to load."
    expect(page.get_by_role("status")).to_contain_text("Version 3 answered in")


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


def test_what_was_edited_cannot_be_filled_in(visit: Open, server: Server) -> None:
    page = visit().open(server)
    fill(page, TEXT)
    button = page.locator(".candidate").first
    page.get_by_label("A sentence with a mask").press_sequentially("x")
    expect(button).to_be_disabled()
    page.get_by_label("A sentence with a mask").press("Backspace")
    expect(button).to_be_enabled()


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
