"""How much of a text a tokenizer does not know is counted, and said where it is much."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.tiny import SENTENCES
from tests.tiny_run import make_config
from tfmlm.config import Config, TokenizerConfig
from tfmlm.data.prepare import measure_unknown, prepare_data
from tfmlm.training.setup import set_up


def with_vocabulary(config: Config, size: int, streaming: bool = False) -> Config:
    data = replace(config.data, streaming=streaming)
    return replace(config, tokenizer=TokenizerConfig(train_vocab_size=size), data=data)


@pytest.mark.parametrize("streaming", [False, True])
def test_the_share_is_that_of_the_held_out_tokens(streaming: bool, tmp_path: Path, text_file: Path) -> None:
    data = prepare_data(with_vocabulary(make_config(tmp_path, text_file), 40, streaming))
    blocks = list(data.validation.read_in_order().unbatch().as_numpy_iterator())
    special = set(data.tokenizer.all_special_ids) - {data.tokenizer.unk_token_id}
    ids = [token for block in blocks for token in block["input_ids"].tolist() if token not in special]
    share = ids.count(data.tokenizer.unk_token_id) / len(ids)
    assert 0.1 < share < 1
    assert measure_unknown(data) == pytest.approx(share, abs=1e-12)


def test_much_that_is_unknown_is_noted_before_training(
    tmp_path: Path, text_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notes = set_up(with_vocabulary(make_config(tmp_path, text_file), 40)).notes
    (note,) = [note for note in notes if "of the held-out tokens are [UNK]" in note]
    assert "raise tokenizer.train_vocab_size" in note
    assert note in caplog.messages


def test_a_vocabulary_that_knows_the_text_needs_no_note(tmp_path: Path, text_file: Path) -> None:
    assert text_file.read_text().startswith(SENTENCES[0])
    notes = set_up(with_vocabulary(make_config(tmp_path, text_file), 300)).notes
    assert not [note for note in notes if "UNK" in note]
