"""What the clients are asked, and the one line that asking in vain ends in."""

from collections.abc import Callable

import grpc
import pytest

from tests.client.peer import Fault
from tfmlm.client.client import FillMaskClient
from tfmlm.errors import UserError

TEXTS = [
    "Return the <mask> size.",
    "Load the default <mask> of the <mask> file, if it exists.",
    "Compute the first<mask> of the given array.",
]
QUICK = {"backoff_seconds": 0.05, "timeout_seconds": 120.0}
TOKEN = "sesame-1f9a"

REST_BUSY, GRPC_BUSY = Fault(503, '{"error": "not ready"}'), Fault(grpc.StatusCode.UNAVAILABLE, "not ready")

Connect = Callable[..., FillMaskClient]


def fail(client: FillMaskClient, texts: list[str] = TEXTS) -> str:
    """The one line that asking ends in."""
    with pytest.raises(UserError) as caught:
        client.fill(texts)
    message = str(caught.value)
    assert "\n" not in message
    assert TOKEN not in message
    assert caught.value.__cause__ is None
    return message
