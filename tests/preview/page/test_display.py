"""The page shows sentences as they are, notes of the export, and all of it on a narrow screen."""

import pytest
from playwright.sync_api import expect

from tests.preview.page.visits import TWO_MASKS, Open, ask, fill
from tests.preview.server import Server

pytestmark = pytest.mark.long


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
