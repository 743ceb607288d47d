"""What the Hub asks for is heeded as far as a clock can."""

import pytest
import requests

from tfmlm.hub.upload import describe_failure


def refuse(retry_after: str) -> requests.HTTPError:
    response = requests.Response()
    response.status_code, response.reason = 429, "Too Many Requests"
    response.headers["Retry-After"] = retry_after
    return requests.HTTPError("slow down", response=response)


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("3", 3),
        ("0", 0),
        ("-5", 0),
        ("soon", 0),
        ("", 0),
        ("1e9", 0),
        ("99999999999999999999", 21_600),
        ("9" * 400, 21_600),
        ("9" * 5000, 0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 21_600),
        ("Fri, 31 Dec 99999999999999 23:59:59 GMT", 0),
    ],
)
def test_a_wish_to_wait_is_bounded(retry_after: str, seconds: float) -> None:
    failure = describe_failure(refuse(retry_after))
    assert failure.is_passing
    assert failure.asked_seconds == seconds
