"""Texts come one at a time, as they are in the file; a file of lines appears whole or not at all."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tfmlm.errors import UserError
from tfmlm.inference.texts import GivenText, check_length, read_texts, take_batches, write_lines


def test_a_line_ends_with_a_newline_only(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes("\ufeffa\r\n\n b\u2028\x0bc \nlast".encode())
    texts = list(read_texts([], path))
    assert [text.text for text in texts] == ["a", "", " b\u2028\x0bc ", "last"]
    assert [text.name for text in texts] == [f"{path} row {number}" for number in (1, 2, 3, 4)]


def test_rows_of_json_may_hold_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "a\\nb", "more": 1}\n{"text": ""}\n')
    assert [text.text for text in read_texts([], path)] == ["a\nb", ""]


def test_a_file_is_not_read_ahead(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes(b"a\nb\n\xff\n")
    texts = read_texts([], path)
    assert [next(texts).text, next(texts).text] == ["a", "b"]
    with pytest.raises(UserError, match="row 3 is not UTF-8"):
        next(texts)


def test_an_arguments_name_is_its_beginning() -> None:
    short, long = read_texts(["a 'b'", "x" * 61], None)
    assert short.name == "text \"a 'b'\""
    assert long.name == f"text '{'x' * 60}…'"
    check_length(short, 3, max_length=3)
    with pytest.raises(UserError, match="has 4 tokens and the model takes 3; shorten it"):
        check_length(short, 4, max_length=3)


def test_batches_are_cut_from_a_stream_without_end() -> None:
    batches = take_batches(count(), 3)
    assert [next(batches), next(batches)] == [[0, 1, 2], [3, 4, 5]]
    assert list(take_batches("abcd", 3)) == [["a", "b", "c"], ["d"]]


def test_lines_appear_when_all_are_written(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"

    def make_lines() -> Iterator[str]:
        for line in ("a", "b"):
            assert not path.exists()
            yield line

    assert write_lines(path, make_lines()) == 2
    assert path.read_text() == "a\nb\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_may_be_written_over_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("a\nb\n")
    assert write_lines(path, (text.text.upper() for text in read_texts([], path))) == 2
    assert path.read_text() == "A\nB\n"


@pytest.mark.parametrize("error", [UserError("wrong row"), KeyboardInterrupt(), ValueError()])
def test_lines_that_end_early_leave_nothing(tmp_path: Path, error: BaseException) -> None:
    def make_lines() -> Iterator[str]:
        yield "a"
        raise error

    with pytest.raises(type(error)):
        write_lines(tmp_path / "lines.jsonl", make_lines())
    assert not list(tmp_path.iterdir())


def test_a_text_of_an_argument_has_no_place() -> None:
    assert list(read_texts(["a", "b"], None)) == [GivenText("a", ""), GivenText("b", "")]
