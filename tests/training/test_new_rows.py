"""A model whose vocabulary grows: new rows are means of old ones, and old texts have the old logits."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import PreTrainedTokenizerFast

from tests.finished import Finished
from tests.tiny import ALL_TINY_CONFIGS, PAD_IS_ONE, SENTENCES, long_but, make_tiny
from tests.tiny_run import PowerCutError, assert_same_weights, cut_after, in_folder
from tests.training.test_model_folder import make_random
from tfmlm.cli.main import main
from tfmlm.cli.train import describe_run
from tfmlm.config import (
    Config,
    DataConfig,
    ExportConfig,
    ModelConfig,
    RunConfig,
    TokenizerConfig,
    TrainConfig,
)
from tfmlm.config.load import dump_config
from tfmlm.data.new_words import extend_tokenizer, find_origins
from tfmlm.data.tokenizers import count_ids, load_tokenizer
from tfmlm.errors import UserError
from tfmlm.run import evaluate_folder, run
from tfmlm.training.model import load_model_folder, make_model
from tfmlm.training.model_folder import save_model_folder
from tfmlm.training.weights import find_vocabulary_axes, name_as_pytorch

WORDS = ["pillar", "lattice"]
_SHORT = ("bert", "mobilebert", "rembert", "roberta")


@pytest.mark.parametrize("model_type", long_but(ALL_TINY_CONFIGS, *_SHORT))
def test_the_axes_are_those_that_change_with_the_vocabulary(model_type: str) -> None:
    small, large = (
        {
            name: weight.layout.shape
            for name, weight in name_as_pytorch(
                make_tiny(model_type, **ALL_TINY_CONFIGS[model_type], vocab_size=size)
            ).items()
        }
        for size in (60, 67)
    )
    changed = {name: small[name].index(60) for name in small if small[name] != large[name]}
    model = make_tiny(model_type, **ALL_TINY_CONFIGS[model_type])
    assert find_vocabulary_axes(model) == changed


@pytest.mark.parametrize(
    ("model_type", "spare_rows"),
    [
        *(
            pytest.param(name, 0, marks=[] if name in _SHORT else pytest.mark.long)
            for name in ALL_TINY_CONFIGS
        ),
        *(("bert", 1), ("bert", 40)),
    ],
)
def test_new_rows_are_means_and_all_else_is_as_it_was(
    model_type: str,
    spare_rows: int,
    tmp_path: Path,
    word_tokenizer: PreTrainedTokenizerFast,
    byte_tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Also where the model has rows that belonged to no token."""
    original = byte_tokenizer if model_type in PAD_IS_ONE else word_tokenizer
    saved = make_random(model_type, vocab_size=len(original) + spare_rows)
    save_model_folder(saved, original, tmp_path / "model", {})
    tokenizer = TokenizerConfig(added_tokens=WORDS)
    config = Config(
        data=DataConfig(block_size=32), model=ModelConfig(str(tmp_path / "model")), tokenizer=tokenizer
    )
    extended = extend_tokenizer(original, WORDS, 3, [[f"pilot {text}" for text in SENTENCES]])
    num_old, num_new = count_ids(original), count_ids(extended) - count_ids(original)
    assert num_new > len(WORDS)
    grown, diagnosis = make_model(config, extended)
    assert not diagnosis.new
    assert not diagnosis.unused
    assert grown.config.vocab_size == max(num_old + spare_rows, num_old + num_new)
    origins = find_origins(original, extended)
    axes = find_vocabulary_axes(grown)
    before = {name: weight.read() for name, weight in name_as_pytorch(saved).items()}
    for name, weight in name_as_pytorch(grown).items():
        if name not in axes:
            np.testing.assert_array_equal(weight.read(), before[name])
            continue
        old, new = (np.moveaxis(values, axes[name], 0) for values in (before[name], weight.read()))
        np.testing.assert_array_equal(new[:num_old], old[:num_old])
        for token_id, of in origins.items():
            np.testing.assert_allclose(new[token_id], sum(old[each] for each in of) / len(of), atol=1e-6)
        np.testing.assert_array_equal(new[num_old + num_new :], old[num_old + num_new :])
    ids = np.array([original(SENTENCES[0])["input_ids"]], np.int32)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    np.testing.assert_allclose(
        grown(inputs).logits[..., :num_old], saved(inputs).logits[..., :num_old], atol=1e-5
    )


def test_a_tokenizer_that_the_model_has_too_few_rows_for_is_refused(
    tmp_path: Path, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    save_model_folder(make_random("bert", vocab_size=60), word_tokenizer, tmp_path / "model", {})
    config = Config(
        data=DataConfig(block_size=32),
        model=ModelConfig(str(tmp_path / "model")),
        tokenizer=TokenizerConfig(added_tokens=WORDS),
    )
    with pytest.raises(UserError, match="the model only 60"):
        make_model(config, extend_tokenizer(word_tokenizer, WORDS, 0, []))


# === Runs ===


@pytest.fixture
def config(tmp_path: Path, word_run: Finished) -> Config:
    """Goes on from a finished model, on text with words that it has not."""
    rows = [f"{text} A pillar of the lattice is in the patella." for text in SENTENCES]
    (tmp_path / "text.txt").write_text("\n".join(rows))
    return Config(
        run=RunConfig(output_dir=str(tmp_path / "run")),
        data=DataConfig(source="text", train_files=[str(tmp_path / "text.txt")], block_size=32),
        tokenizer=TokenizerConfig(added_tokens=WORDS, extend_from_text=4),
        model=ModelConfig(name_or_path=str(word_run.model_dir)),
        train=TrainConfig(max_steps=4, per_replica_batch_size=4, checkpoint_every_steps=2),
        export=ExportConfig(enabled=False),
    )


def test_a_run_with_new_words(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Interrupted it ends as it would have, evaluated it gives the same, of other text it does not go on."""
    whole = run(config)
    assert whole is not None
    result = whole.result
    tokenizer = load_tokenizer(result.model_dir)
    assert set(WORDS) <= set(tokenizer.get_vocab())
    assert result.num_new_words >= 3
    assert result.tokens_a_text_before is not None
    assert result.tokens_a_text_after is not None
    assert result.tokens_a_text_after < result.tokens_a_text_before - 4
    assert result.perplexity_per_character is not None
    assert 1 < result.perplexity_per_character < result.perplexity
    words = f"{result.num_new_words} new, {result.tokens_a_text_before:,.1f} tokens a held-out text before, "
    assert f"\nwords        {words}" in describe_run(whole)
    fields = json.loads((Path(result.model_dir) / "config.json").read_text())
    tensors = load_file(Path(result.model_dir) / "model.safetensors")
    assert fields["vocab_size"] == len(tokenizer)
    assert tensors["bert.embeddings.word_embeddings.weight"].shape[0] == len(tokenizer)
    load_model_folder(result.model_dir)

    evaluation = evaluate_folder(result.model_dir, [])
    assert f"{evaluation.perplexity:.6g}" == f"{result.perplexity:.6g}"

    again = in_folder(config, tmp_path / "again")
    with monkeypatch.context() as patched:
        cut_after(3, patched)
        with pytest.raises(PowerCutError):
            run(again)
    text = (tmp_path / "text.txt").read_text()
    (tmp_path / "text.txt").write_text(text.replace("patella", "platelet"))
    (tmp_path / "config.yaml").write_text(dump_config(again))
    assert main(["train", str(tmp_path / "config.yaml")]) == 2
    assert "was trained with another tokenizer than this text" in capfd.readouterr().err.splitlines()[-1]
    (tmp_path / "text.txt").write_text(text)
    assert run(again) is not None
    assert_same_weights(tmp_path / "run", tmp_path / "again")


@pytest.mark.long
def test_a_stream_and_shards_have_the_same_words(config: Config, tmp_path: Path) -> None:
    def train(name: str, **data: object) -> Path:
        other = replace(in_folder(config, tmp_path / name), data=replace(config.data, **data))
        finished = run(replace(other, train=replace(config.train, max_steps=1)))
        assert finished is not None
        assert finished.result.tokens_a_text_after is not None
        return Path(finished.result.model_dir)

    (tmp_path / "config.yaml").write_text(dump_config(config))
    assert main(["prepare", str(tmp_path / "config.yaml"), "--output", str(tmp_path / "shards")]) == 0
    folders = [train("stream", streaming=True), train("sharded", source=str(tmp_path / "shards"))]
    vocabularies = [load_tokenizer(folder).get_vocab() for folder in folders]
    assert vocabularies[0] == vocabularies[1]
    for changed in (
        replace(config.tokenizer, extend_from_text=5),
        replace(config.tokenizer, added_tokens=[]),
        TokenizerConfig(),
    ):
        other = replace(in_folder(config, tmp_path / "other"), tokenizer=changed)
        with pytest.raises(UserError, match=r"were made with tokenizer\.(added_tokens|extend_from_text)"):
            run(replace(other, data=replace(config.data, source=str(tmp_path / "shards"))))


@pytest.mark.long
def test_an_export_knows_the_words(config: Config, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export = ExportConfig(name="words", dir=str(tmp_path / "saved"), text_signature="require")
    assert run(replace(config, export=export)) is not None
    model_dir = str(tmp_path / "run" / "model")
    answers = []
    for model in (model_dir, str(tmp_path / "saved" / "words")):
        capfd.readouterr()
        assert main(["predict", model, "A pillar of the [MASK], (lattice) pillars.", "--json"]) == 0
        answers.append([each["token"] for each in json.loads(capfd.readouterr().out)[0]])
    assert answers[0] == answers[1]
