"""What a tokenizer does not know of a text is counted while it is packed, and said; half of it is refused."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tiny import SENTENCES
from tests.tiny_run import Command, make_config
from tfmlm.cli.main import main
from tfmlm.config import Config, TokenizerConfig
from tfmlm.config.load import dump_config
from tfmlm.data.prepare import count_texts, prepare_data
from tfmlm.run import run
from tfmlm.training.setup import set_up

SNOW = "☃"
"""A character that the word tokenizer does not know: each is one token."""


def with_vocabulary(config: Config, size: int, streaming: bool = False) -> Config:
    data = replace(config.data, streaming=streaming)
    return replace(config, tokenizer=TokenizerConfig(train_vocab_size=size), data=data)


@pytest.fixture
def snowy(config: Config, tmp_path: Path, word_tokenizer: object) -> Config:
    """A run on words under a tokenizer that knows them all, of which `snow` makes some unknown."""
    word_tokenizer.save_pretrained(tmp_path / "tokenizer")  # type: ignore[attr-defined]
    return replace(config, tokenizer=TokenizerConfig(name_or_path=str(tmp_path / "tokenizer")))


def write_texts(config: Config, share: float, num_texts: int = 300) -> None:
    """Texts of twenty single words, of which about this share is unknown."""
    rng = random.Random(0)
    texts = [
        " ".join(SNOW if rng.random() < share else rng.choice(["the", "name", "size"]) for _ in range(20))
        for _ in range(num_texts)
    ]
    Path(config.data.train_files[0]).write_text("\n".join(texts), encoding="utf-8")


@pytest.mark.parametrize("streaming", [False, True])
def test_the_share_is_that_of_all_tokens_of_the_text(streaming: bool, snowy: Config) -> None:
    """Of a stream, of what is held out."""
    write_texts(snowy, 0.2)
    data = prepare_data(replace(snowy, data=replace(snowy.data, streaming=streaming)))
    special = set(data.tokenizer.all_special_ids) - {data.tokenizer.unk_token_id}
    ids = [
        token
        for blocks in ([data.validation] if streaming else [data.train, data.validation])
        for block in blocks.read_in_order().unbatch().as_numpy_iterator()
        for token in block["input_ids"].tolist()
        if token not in special
    ]
    share = ids.count(data.tokenizer.unk_token_id) / len(ids)
    assert 0.1 < share < 0.3
    assert count_texts(data).unknown_share == pytest.approx(share, abs=1e-12)


@pytest.mark.parametrize(("share", "is_noted"), [(0.0, False), (0.004, False), (0.03, True), (0.4, True)])
def test_a_note_from_one_percent(
    share: float, is_noted: bool, snowy: Config, caplog: pytest.LogCaptureFixture
) -> None:
    write_texts(snowy, share)
    setup = set_up(snowy)
    assert setup.unknown == pytest.approx(share, abs=0.03)
    notes = [note for note in setup.notes if "of the text's tokens are [UNK]" in note]
    assert len(notes) == is_noted
    assert all(note in caplog.messages and "made for such text" in note for note in notes)


def test_a_trained_tokenizer_is_to_be_larger(tmp_path: Path, text_file: Path) -> None:
    (note,) = [
        note
        for note in set_up(with_vocabulary(make_config(tmp_path, text_file), 60)).notes
        if "[UNK]" in note
    ]
    assert "raise tokenizer.train_vocab_size" in note


def test_half_is_refused_before_training(snowy: Config, command: Command, tmp_path: Path) -> None:
    write_texts(snowy, 0.6)
    (tmp_path / "config.yaml").write_text(dump_config(snowy))
    exit_code, said = command("train")
    assert exit_code == 2
    assert "of the text's tokens are [UNK], unknown to the tokenizer" in said
    assert not (tmp_path / "run" / "logs").exists()


@pytest.mark.parametrize("length", [101, 150, 2000])
def test_words_that_are_too_long_for_wordpiece_are_not_trained_on(
    length: int, config: Config, command: Command
) -> None:
    """Lines of one word, of which WordPiece knows none however often its letters occur."""
    rng = random.Random(length)
    lines = ["".join(rng.choices("ACGT", k=length)) for _ in range(40)]
    Path(config.data.train_files[0]).write_text("\n".join(lines))
    exit_code, said = command("train")
    assert exit_code == 2
    assert said.startswith("tfmlm: 100.0% of the text's tokens are [UNK]")
    assert "tokenizer.algorithm=byte_bpe" in said


def test_summary_result_and_card_have_the_share(snowy: Config, capfd: pytest.CaptureFixture[str]) -> None:
    write_texts(snowy, 0.2)
    path = Path(snowy.data.train_files[0]).with_suffix(".yaml")
    path.write_text(dump_config(replace(snowy, train=replace(snowy.train, max_steps=2))))
    assert main(["train", str(path)]) == 0
    printed = capfd.readouterr().out
    result = json.loads((snowy.run_dir / "result.json").read_text())
    share = result["unknown_share"]
    assert 0.15 < share < 0.25
    assert f"text         {share:.1%} unknown to the tokenizer, " in printed
    assert f"note         {share:.1%} of the text's tokens are [UNK]" in printed
    assert (
        f"{share:.1%} of the text's tokens are [UNK]" in (snowy.run_dir / "model" / "README.md").read_text()
    )


@pytest.mark.parametrize("runner", [[], ["--runner", "direct"]])
def test_prepare_notes_and_refuses_too(
    runner: list[str], snowy: Config, command: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text(dump_config(snowy))
    write_texts(snowy, 0.2)
    shards = str(tmp_path / "shards")
    assert main(["prepare", str(tmp_path / "config.yaml"), "--output", shards, *runner]) == 0
    assert "of the text's tokens are [UNK]" in capfd.readouterr().out
    sharded = replace(snowy, data=replace(snowy.data, source=shards))
    assert count_texts(prepare_data(sharded)) == count_texts(prepare_data(snowy))
    assert count_texts(prepare_data(snowy)).unknown_share > 0.1

    write_texts(snowy, 0.6)
    exit_code, said = command("prepare", "--output", str(tmp_path / "refused"), *runner)
    assert exit_code == 2
    assert "of the text's tokens are [UNK]" in said
    assert not (tmp_path / "refused" / "manifest.json").exists()


def test_a_vocabulary_that_knows_the_text_needs_no_note(tmp_path: Path, text_file: Path) -> None:
    assert text_file.read_text().startswith(SENTENCES[0])
    notes = set_up(with_vocabulary(make_config(tmp_path, text_file), 300)).notes
    assert not [note for note in notes if "UNK" in note]


def test_blocks_without_a_mask_are_counted(tmp_path: Path, text_file: Path) -> None:
    """Chinese under a tokenizer that splits at spaces; each token of so long a word stands for itself."""
    rng = random.Random(0)
    lines = ["".join(rng.choices("天地玄黄宇宙洪荒日月盈昃辰宿列张", k=60)) for _ in range(200)]
    text_file.write_text("\n".join(lines), encoding="utf-8")
    config = make_config(tmp_path, text_file, max_steps=2)
    config = replace(
        config,
        tokenizer=TokenizerConfig(train_vocab_size=60, algorithm="unigram"),
        masking=replace(config.masking, whole_word=True),
    )
    result = run(config).result
    assert result.unmasked_share < 0.05
    low = replace(
        config,
        masking=replace(config.masking, rate=0.02),
        run=replace(config.run, output_dir=str(tmp_path / "low")),
    )
    result = run(low).result
    assert 0.3 < result.unmasked_share < 0.8
    assert f"{result.unmasked_share:.1%} of the held-out blocks have no mask" in " ".join(result.notes)
