"""No more of a stream is read than is needed."""

from collections.abc import Iterator
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from tests.data.streaming.streamed import BLOCK_SIZE, WINDOW, change, read
from tests.tiny import SENTENCES
from tfmlm.config import Config
from tfmlm.data.blocks import StreamedBlocks
from tfmlm.data.packing import BlockFormat
from tfmlm.data.prepare import prepare_data
from tfmlm.data.text_stream import TextStream


def stream_forever(passed: list[int]) -> TextStream:
    def read_part(part: int) -> Iterator[list[str]]:
        while True:
            passed.append(len(passed))
            yield SENTENCES[:20]

    return TextStream(1, read_part, lambda: "endless")


def test_no_more_of_an_endless_stream_is_read_than_a_window(
    byte_tokenizer: PreTrainedTokenizerFast,
) -> None:
    passed: list[int] = []
    endless = StreamedBlocks(stream_forever(passed), byte_tokenizer, BlockFormat(BLOCK_SIZE, 1))
    rows = read(endless.read_shuffled(0, 0, 10))
    assert len(rows["epoch"]) == 10
    assert set(rows["epoch"]) == {0}
    assert len(passed) * 20 < 3 * WINDOW * BLOCK_SIZE


def test_taking_texts_reads_no_further() -> None:
    passed: list[int] = []
    texts = stream_forever(passed)
    assert [len(batch) for batch in texts.take(50)] == [20, 20, 10]
    assert len(passed) == 3
    assert sum(map(len, texts.take(40))) == 40
    assert len(passed) == 5


def test_a_part_that_is_not_reached_is_not_read(config: Config, tmp_path: Path) -> None:
    """The second file would raise."""
    lines = [f"{number} {sentence}" for number in range(15) for sentence in SENTENCES]
    good, bad = tmp_path / "a.txt", tmp_path / "b.txt"
    good.write_text("\n".join(lines))
    bad.write_bytes(b"\xff\n")
    data = prepare_data(change(config, train_files=[str(good), str(bad)], validation_fraction=0.5))
    rows = read(data.train.read_shuffled(0, 0, 10))
    assert len(rows["input_ids"]) == 10
    assert len(read(data.validation.read_in_order())["input_ids"]) > 100


def test_at_most_a_thousand_texts_are_held_out_of_a_stream(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "many.txt"
    path.write_text("\n".join(f"{number}" for number in range(3000)))
    data = prepare_data(change(config, train_files=[str(path)], validation_fraction=0.5))
    rows = read(data.validation.read_in_order())
    begins = data.tokenizer.cls_token_id
    assert int((rows["input_ids"] == begins).sum()) == 1000
