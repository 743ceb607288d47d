"""A visit to the page of `tfmlm serve`: what is typed there, and what it shows."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import ConsoleMessage, Page, Request, expect

from tests.preview.server import Server

TEXT = "Return the [MASK] of the given array."
TWO_MASKS = "Load the [MASK] of the given [MASK], if it exists."


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
