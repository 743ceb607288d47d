"""No password and no token is left in a URL that is shown."""

import pytest

from tfmlm.errors import UserError, in_one_line
from tfmlm.urls import has_password, hide_secrets, hide_secrets_in, is_url, lacks_secrets


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:secret@host:80/a.txt", "https://…@host:80/a.txt"),
        ("https://secret@host/a.txt", "https://…@host/a.txt"),
        ("ftp://me:secret@host/a.txt", "ftp://…@host/a.txt"),
        ("https://host/a.txt?token=abc", "https://host/a.txt?token=…"),
        (
            "https://host/a?X-Amz-Date=1&X-Amz-Signature=s/cret==",
            "https://host/a?X-Amz-Date=1&X-Amz-Signature=…",
        ),
        ("https://host/a?x=longer-than-most&y=1", "https://host/a?x=…&y=1"),
        ("https://host/a?longer-than-most", "https://host/a?…"),
        ("https://host/a#token=abc", "https://host/a#token=…"),
        ("zip://a.txt::https://me:secret@host/a.zip?sig=a", "zip://a.txt::https://…@host/a.zip?sig=…"),
    ],
)
def test_what_is_hidden(url: str, shown: str) -> None:
    assert hide_secrets(url) == shown
    assert lacks_secrets(shown)
    assert not lacks_secrets(url)
    assert hide_secrets(shown) == shown
    assert has_password(url) == ("@" in url)


@pytest.mark.parametrize(
    "name",
    [
        "a?token=abc.txt",
        "/data/me:you@host/a.txt",
        "s3://bucket/part-?-of-a-long-name.txt",
        "s3://bucket/year=2020/a?/month=12-of-many/a.txt",
        "abfs://container@account.dfs.core.windows.net/a.txt",
        "sftp://me@host/a.txt",
        "https://host/records/1/a.txt?download=1&id=17",
        "https://[::1]:8000/a.txt",
    ],
)
def test_what_stays(name: str) -> None:
    assert hide_secrets(name) == name
    assert not has_password(name)
    assert is_url(name) == ("://" in name)


def test_a_text_with_urls_in_it() -> None:
    text = "403, url='https://host/a?token=abc' (see <ftp://me:secret@host/b>)"
    assert hide_secrets_in(text) == "403, url='https://host/a?token=…' (see <ftp://…@host/b>)"


def test_a_message_shows_no_secret() -> None:
    assert in_one_line(UserError("data.train_files is 'https://h/a?token=abc'")) == (
        "data.train_files is 'https://h/a?token=…'"
    )
