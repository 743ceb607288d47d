"""The configuration: every key with its default, what it may hold, and what it means, in one place.

`config.load` reads it from YAML, and `config.cross_checks` has what one key alone cannot say.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

FILE_SOURCES = ("json", "csv", "parquet", "arrow", "text")
"""Values of `data.source` that read `data.train_files`."""


class Range(NamedTuple):
    """Numbers that a key may hold; a key that may be empty may be that too.

    Attributes:
        holds: whether a number is one of them.
        words: how a message says it.
    """

    holds: Callable[[float], bool]
    words: str


POSITIVE = Range(lambda value: 0 < value < 2**63, "more than 0 and less than 2**63")
NOT_NEGATIVE = Range(lambda value: 0 <= value < 2**63, "0 or more and less than 2**63")
FRACTION = Range(lambda value: 0 <= value <= 1, "between 0 and 1")
SHARE = Range(lambda value: 0 < value <= 1, "more than 0 and at most 1")
BELOW_ONE = Range(lambda value: 0 <= value < 1, "0 or more and less than 1")
OPEN_FRACTION = Range(lambda value: 0 < value < 1, "between 0 and 1, both excluded")


def _key(default: Any, meaning: str, allowed: Range | None = None) -> Any:
    """A key of a section.

    Args:
        default: its value if it is not given; a class makes a new object.
        meaning: a sentence for people, as `tfmlm config` prints it.
        allowed: what a number may be. A key with words to choose from has them in its type.
    """
    metadata = {"meaning": meaning, "allowed": allowed}
    if inspect.isclass(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class RunConfig:
    """Names and places."""

    name: str = _key("run", "names the run folder and the export.")
    output_dir: str | None = _key(None, "the run folder; `runs/<name>` when empty.")
    seed: int = _key(0, "of weights, data order, masks and dropout.", NOT_NEGATIVE)
    sample_texts: list[str] = _key(list, "texts with mask tokens that are filled in at the end of training.")


@dataclass(frozen=True)
class DataConfig:
    """Where the text comes from and how it is cut."""

    source: str = _key(
        "installed-docs",
        "a Hub dataset id, `json`, `csv`, `parquet`, `arrow` (Feather too), `text`, or `installed-docs` (the "
        "docstrings of the Python packages in this environment), or a folder: one that `save_to_disk` of "
        "`datasets` wrote, or one that `tfmlm prepare` wrote, `gs://` too.",
    )
    config_name: str | None = _key(None, "configuration of a Hub dataset.")
    split: str = _key(
        "train",
        "split of a Hub dataset, or of a folder of `save_to_disk`, that holds the training text, in the "
        "Hub's own notation, such as `train[:5000]`.",
    )
    validation_split: str | None = _key(
        None, "split that is held out; the dataset's own `validation` when empty."
    )
    train_files: list[str] = _key(
        list,
        "files, folders or globs for the file sources, compressed or in zip archives too; URLs that fsspec "
        "knows, such as `gs://`, `s3://` and `https://`, where a glob or a folder needs a file system that "
        "lists.",
    )
    validation_files: list[str] = _key(list, "held-out files, named in the same ways.")
    field: str | None = _key(
        None, "of JSON files that are one object each: the field of it that holds the list of rows."
    )
    text_column: str = _key(
        "text",
        "column of text; dotted for nested columns (`answers.text`), several with commas between them; "
        "lists and several columns are joined by a space.",
    )
    sample_by: Literal["line", "paragraph", "document"] = _key(
        "line", "what one text of a text file is: a `line`, a `paragraph` or the `document`."
    )
    validation_fraction: float = _key(
        0.05,
        "share of the texts that is held out when there is no validation split or file; chosen by a "
        "hash of each text, so about this share, and equal texts are on one side.",
        OPEN_FRACTION,
    )
    validation_blocks: int | None = _key(
        None, "evaluate on at most this many held-out blocks, the first ones.", POSITIVE
    )
    max_rows: int | None = _key(
        None, "use at most this many texts, chosen by `run.seed`, before the split.", POSITIVE
    )
    block_size: int = _key(128, "tokens in one training example; at most so many without packing.", POSITIVE)
    pack: bool = _key(
        True,
        "concatenate the texts and cut them into full blocks; `false` makes each text an example of its own, "
        "for titles, proteins, molecules or log lines, and puts texts of like length into one step.",
    )
    long_texts: Literal["split", "cut"] = _key(
        "split",
        "what becomes of a text that is longer than a block, without packing: `split` it into several, or "
        "`cut` off the rest.",
    )
    stride: int = _key(
        0,
        "tokens of a part of a text that the next part begins with, to be read and not guessed again, "
        "without packing.",
        NOT_NEGATIVE,
    )
    attend_within_texts: bool = _key(
        False,
        "with packing, let the tokens of a block attend to those of their own text only, and count their "
        "positions from its beginning, or from that of the block.",
    )
    drop_remainder: bool = _key(
        False,
        "leave out the last block if it is short, as the Hugging Face guide does, instead of padding it.",
    )
    num_proc: int = _key(
        1,
        "processes that read a Hub dataset or `installed-docs`; tokenizing uses the tokenizer's own threads.",
        POSITIVE,
    )
    streaming: bool = _key(
        False,
        "read, tokenize and pack while training, and write nothing to disk; needs `train.max_steps`. "
        "`max_rows` takes the first texts, and at most 1,000 are held out.",
    )
    on_bad_rows: Literal["error", "skip"] = _key(
        "error",
        "what a row of a file or a dataset does that cannot be read or has no such column: `error` stops and "
        "names it, `skip` leaves it out and counts it.",
    )
    max_text_bytes: int = _key(
        2**24,
        "size of the longest row, in bytes of UTF-8; a longer one is a bad row, so that no file takes all "
        "memory. A novel has about one million.",
        POSITIVE,
    )


@dataclass(frozen=True)
class TokenizerConfig:
    """Which tokenizer."""

    name_or_path: str | None = _key(
        None, "a folder, a Hub id or `package:NAME/PATH`; the model's own when empty."
    )
    train_vocab_size: int | None = _key(
        None, "train a tokenizer of this size on the training text instead.", POSITIVE
    )
    algorithm: Literal["wordpiece", "byte_bpe", "unigram"] = _key(
        "wordpiece", "of a trained tokenizer: `wordpiece`, `byte_bpe` or `unigram`."
    )
    added_tokens: list[str] = _key(
        list,
        "whole words to add to the vocabulary, as a list, or the path of a file with a word a line; they "
        "match inside no other word.",
    )
    extend_from_text: int | None = _key(
        None,
        "add at most this many words and pieces of the training text, those that save the most tokens.",
        POSITIVE,
    )

    @property
    def adds_words(self) -> bool:
        """Whether the vocabulary is to grow."""
        return bool(self.added_tokens or self.extend_from_text)


@dataclass(frozen=True)
class MaskingConfig:
    """Which tokens are hidden."""

    rate: float = _key(0.15, "share of the maskable tokens that is chosen.", SHARE)
    mask_fraction: float = _key(0.8, "share of the chosen that becomes the mask token.", FRACTION)
    random_fraction: float = _key(
        0.1, "share of the chosen that becomes a random word; the rest stays as it is.", FRACTION
    )
    whole_word: bool = _key(
        False, "choose words, by the tokenizer's own word boundaries, and all tokens of a chosen word."
    )
    final_rate: float | None = _key(
        None,
        "the rate of the last step, to which it changes evenly from `rate`; the same when empty.",
        SHARE,
    )
    evaluation_rate: float | None = _key(
        None, "the rate in evaluation; the training's last one when empty.", SHARE
    )

    @property
    def held_out_rate(self) -> float:
        """The rate in evaluation."""
        return next(rate for rate in (self.evaluation_rate, self.final_rate, self.rate) if rate is not None)


@dataclass(frozen=True)
class ModelConfig:
    """Which model."""

    name_or_path: str | None = _key(
        None,
        "pretrained weights: a folder, a Hub id, or `package:NAME/PATH` for a folder inside an "
        "installed Python package.",
    )
    config: dict[str, Any] = _key(
        dict,
        "a Hugging Face configuration. Alone (with `model_type`) it makes a model from scratch; with "
        "`name_or_path` it replaces fields of the pretrained configuration.",
    )
    freeze_embeddings: bool = _key(False, "leave the embeddings as they are.")
    freeze_layers: int = _key(0, "leave the lowest so many layers as they are.", NOT_NEGATIVE)


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamWeightDecay and its schedule."""

    learning_rate: float = _key(5e-5, "peak learning rate.", POSITIVE)
    weight_decay: float = _key(
        0.01, "decoupled decay, not applied to biases and layer normalization.", NOT_NEGATIVE
    )
    beta1: float = _key(0.9, "decay of the mean of the gradients.", BELOW_ONE)
    beta2: float = _key(0.999, "decay of the mean of their squares.", BELOW_ONE)
    epsilon: float = _key(1e-7, "added to the root of that mean.", POSITIVE)
    warmup_steps: int = _key(0, "steps of linear warm-up from zero.", NOT_NEGATIVE)
    warmup_ratio: float = _key(0.0, "the same as a share of all steps.", BELOW_ONE)
    schedule: Literal["linear", "cosine", "polynomial", "constant", "stable"] = _key(
        "linear",
        "after the warm-up: `linear`, `cosine` or `polynomial` decay to zero, `constant`, or `stable`, which "
        "is constant and decays to zero at the end.",
    )
    polynomial_power: float = _key(2.0, "of the polynomial decay.", POSITIVE)
    decay_ratio: float = _key(
        0.1, "share of the steps after the warm-up in which a `stable` rate decays, evenly.", SHARE
    )
    max_grad_norm: float = _key(1.0, "clip the global gradient norm to this; 0 does not clip.", NOT_NEGATIVE)
    layer_decay: float = _key(
        1.0, "factor of the learning rate for each layer further from the head; 1 treats all alike.", FRACTION
    )


@dataclass(frozen=True)
class TrainConfig:
    """The training loop."""

    epochs: int = _key(
        1, "passes over the training blocks; a stream ends after `max_steps` instead.", POSITIVE
    )
    max_steps: int | None = _key(None, "at most this many optimizer steps.", POSITIVE)
    max_seconds: float | None = _key(
        None,
        "at most about this long: the first steps are timed, and the number of steps and the schedule "
        "are cut to what fits.",
        POSITIVE,
    )
    per_replica_batch_size: int = _key(16, "blocks that one replica computes at once.", POSITIVE)
    gradient_accumulation_steps: int = _key(1, "such batches before each optimizer step.", POSITIVE)
    precision: Literal["float32", "bfloat16", "float16"] = _key(
        "float32",
        "`float32`, `bfloat16` or `float16` (computation; weights stay float32, and float16 scales the "
        "loss).",
    )
    xla: bool = _key(False, "compile the step with XLA.")
    rematerialize: bool = _key(
        False,
        "compute the activations of each transformer layer again in the backward pass, instead of keeping "
        "them: a step takes less memory and more time.",
    )
    logits: Literal["masked", "all"] = _key(
        "masked", "`masked` computes the vocabulary head at masked positions only, `all` everywhere."
    )
    steps_per_execution: int = _key(
        1, "steps that the device runs between two returns to Python; for TPUs.", POSITIVE
    )
    checkpoint_every_steps: int = _key(500, "steps between checkpoints.", POSITIVE)
    kept_checkpoints: int = _key(2, "newest checkpoints on disk, besides the best.", POSITIVE)
    evaluate_every_steps: int | None = _key(
        None, "steps between evaluations; only before and after training when empty.", POSITIVE
    )
    evaluate_each_epoch: bool = _key(False, "evaluate at the end of each epoch.")
    keep: Literal["last", "best"] = _key(
        "last", "which weights the run ends with: the `last`, or the `best` by evaluation loss."
    )
    early_stopping_patience: int | None = _key(
        None, "evaluations in a row without a lower loss after which training stops.", POSITIVE
    )
    callbacks: list[dict[str, Any]] = _key(
        list,
        "Keras callbacks of your own: a list of `{class: IMPORT.PATH, arguments: {…}}`, called at each step "
        "and epoch, by the first worker alone. They say nothing about what is trained: a run goes on with "
        "others.",
    )
    resume: Literal["auto", "never"] = _key(
        "auto", "`auto` goes on with an interrupted run of the same configuration, `never` refuses."
    )


@dataclass(frozen=True)
class DistributeConfig:
    """Devices."""

    strategy: Literal["auto", "one_device", "mirrored", "multi_worker", "tpu"] = _key(
        "auto",
        "`auto` (`multi_worker` if `TF_CONFIG` names several workers, `tpu` if there is one, else "
        "`mirrored` for several GPUs, else `one_device`), or one of these.",
    )
    tpu: str | None = _key(
        None, "name or address of the TPU; that of this machine or of `TPU_NAME` when empty."
    )
    wait_seconds: float = _key(
        1800.0,
        "seconds that a worker of `TF_CONFIG` waits for the others to start, and to get as far; then exit "
        "code 75.",
        POSITIVE,
    )


@dataclass(frozen=True)
class ExportConfig:
    """The SavedModel."""

    enabled: bool = _key(True, "export after training.")
    name: str | None = _key(None, "folder name of the export; the run's name when empty.")
    dir: str = _key("saved_models", "folder of exports; the export is `<dir>/<name>/<version>`.")
    text_signature: Literal["auto", "require", "off"] = _key(
        "auto",
        "`auto` adds a signature that takes texts if the tokenizer's ops equal the tokenizer, `require` "
        "fails if they do not, `off` leaves it out.",
    )
    top_k: int = _key(5, "candidates for each mask.", POSITIVE)
    max_top_k: int = _key(
        100,
        "the most candidates that a request may ask for (signatures `text_options` and `ids_options`).",
        Range(lambda value: 1 <= value <= 1000, "between 1 and 1000"),
    )
    max_masks: int = _key(16, "masks of a text that are answered, the first ones.", POSITIVE)
    long_texts: Literal["cut", "refuse"] = _key(
        "cut",
        "what becomes of a text that is longer than the model takes: `cut` it so that its masks stay, "
        "or `refuse` it.",
    )
    group_by_length: bool = _key(
        True,
        "compute the texts of a batch that are of like length together, without padding them to the "
        "longest. Faster on a CPU; set it false for a GPU.",
    )


@dataclass(frozen=True)
class HubConfig:
    """The Hugging Face Hub. The token comes from the environment or the login, never from here."""

    push: bool = _key(
        False,
        "upload `model/` at the end of the run, and before as the next keys say; without it they do nothing.",
    )
    repo_id: str | None = _key(None, "repository such as `me/my-model`.")
    private: bool = _key(True, "create the repository as private.")
    revision: str | None = _key(None, "branch for the model, made if need be; `main` when empty.")
    every_steps: int | None = _key(
        None,
        "steps between uploads of the model while it trains, beside the training; if the Hub is slower, "
        "the latest one wins.",
        POSITIVE,
    )
    each_epoch: bool = _key(False, "upload the model at the end of each epoch.")
    checkpoints: str | None = _key(
        None, "another branch, for each checkpoint; without a run folder, `tfmlm train` goes on from it."
    )
    retry_seconds: float = _key(
        300.0,
        "seconds in all to wait between attempts while the Hub is busy or cannot be reached.",
        NOT_NEGATIVE,
    )
    timeout_seconds: float = _key(
        120.0, "seconds without an answer after which an attempt has failed.", POSITIVE
    )
    license: str | None = _key(
        None, "of the model, for its card: an identifier of the Hub such as `apache-2.0`."
    )
    language: list[str] = _key(list, "of the text, for the card: codes such as `en`.")


@dataclass(frozen=True)
class Config:
    """All settings of a run."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    distribute: DistributeConfig = field(default_factory=DistributeConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    hub: HubConfig = field(default_factory=HubConfig)

    @property
    def run_address(self) -> str:
        """The run folder, which may be a remote one."""
        return (self.run.output_dir or f"runs/{self.run.name}").rstrip("/")

    @property
    def run_dir(self) -> Path:
        """The run folder, if it is a local one."""
        return Path(self.run_address)


class Key(NamedTuple):
    """A key as the schema has it.

    Attributes:
        section: such as `train`.
        name: such as `precision`.
        default: its value if it is not given.
        meaning: a sentence for people.
        choices: words that it may hold; empty if they are not counted.
        allowed: numbers that it may hold, if that is less than all.
    """

    section: str
    name: str
    default: Any
    meaning: str
    choices: tuple[str, ...]
    allowed: Range | None

    def __str__(self) -> str:
        return f"{self.section}.{self.name}"


def list_keys() -> Iterator[Key]:
    """Every key, in the order of the schema."""
    defaults = Config()
    for section in fields(Config):
        values = getattr(defaults, section.name)
        hints = get_type_hints(type(values))
        for item in fields(values):
            hint = hints[item.name]
            yield Key(
                section.name,
                item.name,
                getattr(values, item.name),
                item.metadata["meaning"],
                get_args(hint) if get_origin(hint) is Literal else (),
                item.metadata["allowed"],
            )
