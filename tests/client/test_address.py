"""The URLs of served models."""

import pytest

from tfmlm.client.address import Address, parse_address
from tfmlm.client.answers import find_masks, is_ambiguous, put_word
from tfmlm.errors import UserError


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://localhost:8501/v1/models/m", Address("http", "localhost", 8501, "", "m", None, None)),
        ("https://a.b/v1/models/m/versions/12", Address("https", "a.b", None, "", "m", 12, None)),
        ("http://h:1/deep/er/v1/models/m/labels/x", Address("http", "h", 1, "/deep/er", "m", None, "x")),
        ("grpc://[::1]:8500/my%20model", Address("grpc", "::1", 8500, "", "my model", None, None)),
        ("grpcs://h:1/m/versions/0", Address("grpcs", "h", 1, "", "m", 0, None)),
    ],
)
def test_forms(url: str, address: Address) -> None:
    assert parse_address(url) == address
    assert str(address) == url


def test_what_people_paste_is_taken() -> None:
    for url in ("http://h:1/v1/models/m/", "http://h:1/v1/models/m:predict", "http://H:1/v1/models/m"):
        assert str(parse_address(url)) == "http://h:1/v1/models/m"


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8501/v1/models/m",
        "http://localhost:8501",
        "http://localhost:8501/v1/models/",
        "http://h:1/v1/models/m/versions/two",
        "http://h:1/v1/models/m/versions/1/labels/x",
        "http://h:1/v1/models/m?x=1",
        "http:///v1/models/m",
        "grpc://h/m",
        "grpc://h:1",
        "grpc://h:1/v1/models/m",
        "ftp://h:1/m",
    ],
)
def test_other_forms_are_refused(url: str) -> None:
    with pytest.raises(UserError, match=r"write http\(s\)://HOST:PORT/v1/models/NAME"):
        parse_address(url)


def test_masks_are_found_in_either_spelling() -> None:
    assert find_masks("a [MASK] b [MASK]", 2, None) == [(2, 8), (11, 17)]
    assert find_masks("a [MASK] b [MASK]", 1, None) == [(2, 8)]
    assert find_masks("<mask>", 1, None) == [(0, 6)]
    assert find_masks("the <mask> that [MASK] and [MASK] are not", 1, "<mask>") == [(4, 10)]
    assert is_ambiguous("the <mask> that [MASK] is not")
    assert not is_ambiguous("the <mask> and <mask>")
    assert find_masks("a ___ b", 1, "___") == [(2, 5)]
    assert find_masks("a [MASK]", 0, None) == []
    with pytest.raises(UserError, match="--mask-token"):
        find_masks("a ___ b", 1, None)


def test_a_word_takes_the_place_of_a_mask() -> None:
    assert put_word("the [MASK] of", (4, 10), "name") == "the name of"
    assert put_word("the <mask> of", (4, 10), " name") == "the name of"
    assert put_word("the<mask> of", (3, 9), " name") == "the name of"
    assert put_word("<mask> of", (0, 6), " name") == " name of"
