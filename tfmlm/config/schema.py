"""The configuration: every setting of a run, its default, and what it means.

Defaults live here and nowhere else; `config.load` reads them from YAML and checks them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE_SOURCES = ("json", "csv", "parquet", "text")
"""Values of `data.source` that read `data.train_files`."""


@dataclass(frozen=True)
class RunConfig:
    """Names and places.

    Attributes:
        name: names the run folder and the export.
        output_dir: the run folder; `runs/<name>` when empty.
        seed: of weights, data order, masks and dropout.
        sample_texts: texts with mask tokens that are filled in at the end of training.
    """

    name: str = "run"
    output_dir: str | None = None
    seed: int = 0
    sample_texts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DataConfig:
    """Where the text comes from and how it is cut.

    Attributes:
        source: a Hub dataset id, `json`, `csv`, `parquet`, `text`, or `installed-docs` (the docstrings of
            the Python packages in this environment), or a folder that `tfmlm prepare` wrote, `gs://` too.
        config_name: configuration of a Hub dataset.
        split: split that holds the training text, in the Hub's own notation, such as `train[:5000]`.
        validation_split: split that is held out; a Hub dataset's own `validation` when empty.
        train_files: files, folders or globs for the file sources; gzip too.
        validation_files: held-out files.
        text_column: column of text; dotted for nested columns (`answers.text`), several with commas between
            them; lists and several columns are joined by a space.
        sample_by: what one text of a text file is: a `line`, a `paragraph` or the `document`.
        validation_fraction: share of the texts that is held out when there is no validation split or file;
            chosen by a hash of each text, so about this share, and equal texts are on one side.
        max_rows: use at most this many texts, chosen by `run.seed`, before the split.
        block_size: tokens in one training example.
        drop_remainder: leave out the last block if it is short, as the Hugging Face guide does, instead of
            padding it.
        num_proc: processes that read a Hub dataset or `installed-docs`; tokenizing uses the tokenizer's own
            threads.
        streaming: read, tokenize and pack while training, and write nothing to disk; needs
            `train.max_steps`. `max_rows` takes the first texts, and at most 1,000 are held out.
        on_bad_rows: what a row of a file does that cannot be read or has no such column: `error` stops and
            names it, `skip` leaves it out and counts it.
    """

    source: str = "installed-docs"
    config_name: str | None = None
    split: str = "train"
    validation_split: str | None = None
    train_files: list[str] = field(default_factory=list)
    validation_files: list[str] = field(default_factory=list)
    text_column: str = "text"
    sample_by: str = "line"
    validation_fraction: float = 0.05
    max_rows: int | None = None
    block_size: int = 128
    drop_remainder: bool = False
    num_proc: int = 1
    streaming: bool = False
    on_bad_rows: str = "error"


@dataclass(frozen=True)
class TokenizerConfig:
    """Which tokenizer.

    Attributes:
        name_or_path: a folder, a Hub id or `package:NAME/PATH`; the model's own when empty.
        train_vocab_size: train a tokenizer of this size on the training text instead.
        algorithm: of a trained tokenizer: `wordpiece`, `byte_bpe` or `unigram`.
    """

    name_or_path: str | None = None
    train_vocab_size: int | None = None
    algorithm: str = "wordpiece"


@dataclass(frozen=True)
class MaskingConfig:
    """Which tokens are hidden.

    Attributes:
        rate: share of the maskable tokens that is chosen.
        mask_fraction: share of the chosen that becomes the mask token.
        random_fraction: share of the chosen that becomes a random word; the rest stays as it is.
        whole_word: choose words, by the tokenizer's own word boundaries, and all tokens of a chosen word.
        evaluation_rate: the rate in evaluation; the training's when empty.
    """

    rate: float = 0.15
    mask_fraction: float = 0.8
    random_fraction: float = 0.1
    whole_word: bool = False
    evaluation_rate: float | None = None


@dataclass(frozen=True)
class ModelConfig:
    """Which model.

    Attributes:
        name_or_path: pretrained weights: a folder, a Hub id, or `package:NAME/PATH` for a folder inside an
            installed Python package.
        config: a Hugging Face configuration. Alone (with `model_type`) it makes a model from scratch; with
            `name_or_path` it replaces fields of the pretrained configuration.
        freeze_embeddings: leave the embeddings as they are.
        freeze_layers: leave the lowest so many layers as they are.
    """

    name_or_path: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    freeze_embeddings: bool = False
    freeze_layers: int = 0


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamWeightDecay and its schedule.

    Attributes:
        learning_rate: peak learning rate.
        weight_decay: decoupled decay, not applied to biases and layer normalization.
        warmup_steps: steps of linear warm-up from zero.
        schedule: after the warm-up: `linear`, `cosine` or `polynomial` decay to zero, or `constant`.
        polynomial_power: of the polynomial decay.
        max_grad_norm: clip the global gradient norm to this; 0 does not clip.
        layer_decay: factor of the learning rate for each layer further from the head; 1 treats all alike.
    """

    learning_rate: float = 5e-5
    weight_decay: float = 0.01
    warmup_steps: int = 0
    schedule: str = "linear"
    polynomial_power: float = 2.0
    max_grad_norm: float = 1.0
    layer_decay: float = 1.0


@dataclass(frozen=True)
class TrainConfig:
    """The training loop.

    Attributes:
        epochs: passes over the training blocks; a stream ends after `max_steps` instead.
        max_steps: at most this many optimizer steps.
        max_seconds: at most about this long: the first steps are timed, and the number of steps and the
            schedule are cut to what fits.
        per_replica_batch_size: blocks that one replica computes at once.
        gradient_accumulation_steps: such batches before each optimizer step.
        precision: `float32`, `bfloat16` or `float16` (computation; weights stay float32, and float16 scales
            the loss).
        xla: compile the step with XLA.
        logits: `masked` computes the vocabulary head at masked positions only, `all` everywhere.
        steps_per_execution: steps that the device runs between two returns to Python; for TPUs.
        checkpoint_every_steps: steps between checkpoints.
        kept_checkpoints: newest checkpoints on disk, besides the best.
        evaluate_every_steps: steps between evaluations; only before and after training when empty.
        evaluate_each_epoch: evaluate at the end of each epoch.
        keep: which weights the run ends with: the `last`, or the `best` by evaluation loss.
        early_stopping_patience: evaluations in a row without a lower loss after which training stops.
        resume: `auto` goes on with an interrupted run of the same configuration, `never` refuses.
    """

    epochs: int = 1
    max_steps: int | None = None
    max_seconds: float | None = None
    per_replica_batch_size: int = 16
    gradient_accumulation_steps: int = 1
    precision: str = "float32"
    xla: bool = False
    logits: str = "masked"
    steps_per_execution: int = 1
    checkpoint_every_steps: int = 500
    kept_checkpoints: int = 2
    evaluate_every_steps: int | None = None
    evaluate_each_epoch: bool = False
    keep: str = "last"
    early_stopping_patience: int | None = None
    resume: str = "auto"


@dataclass(frozen=True)
class DistributeConfig:
    """Devices.

    Attributes:
        strategy: `auto` (`multi_worker` if `TF_CONFIG` names several workers, `tpu` if there is one, else
            `mirrored` for several GPUs, else `one_device`), or one of these.
        tpu: name or address of the TPU; that of this machine or of `TPU_NAME` when empty.
    """

    strategy: str = "auto"
    tpu: str | None = None


@dataclass(frozen=True)
class ExportConfig:
    """The SavedModel.

    Attributes:
        enabled: export after training.
        name: folder name of the export; the run's name when empty.
        dir: folder of exports; the export is `<dir>/<name>/<version>`.
        text_signature: `auto` adds a signature that takes texts if the tokenizer's ops equal the tokenizer,
            `require` fails if they do not, `off` leaves it out.
        top_k: candidates for each mask.
        max_masks: masks of a text that are answered, the first ones.
        long_texts: what becomes of a text that is longer than the model takes: `cut` it so that its masks
            stay, or `refuse` it.
        group_by_length: compute the texts of a batch that are of like length together, without padding them
            to the longest. Faster on a CPU; set it false for a GPU.
    """

    enabled: bool = True
    name: str | None = None
    dir: str = "saved_models"
    text_signature: str = "auto"
    top_k: int = 5
    max_masks: int = 16
    long_texts: str = "cut"
    group_by_length: bool = True


@dataclass(frozen=True)
class HubConfig:
    """The Hugging Face Hub. The token comes from the environment or the login, never from here.

    Attributes:
        push: upload `model/` at the end of the run, and before as the next keys say; without it they do
            nothing.
        repo_id: repository such as `me/my-model`.
        private: create the repository as private.
        revision: branch for the model, made if need be; `main` when empty.
        every_steps: steps between uploads of the model while it trains, beside the training; if the Hub is
            slower, the latest one wins.
        each_epoch: upload the model at the end of each epoch.
        checkpoints: another branch, for each checkpoint; without a run folder, `tfmlm train` goes on from it.
        retry_seconds: seconds in all to wait between attempts while the Hub is busy or cannot be reached.
        timeout_seconds: seconds without an answer after which an attempt has failed.
        license: of the model, for its card: an identifier of the Hub such as `apache-2.0`.
        language: of the text, for the card: codes such as `en`.
    """

    push: bool = False
    repo_id: str | None = None
    private: bool = True
    revision: str | None = None
    every_steps: int | None = None
    each_epoch: bool = False
    checkpoints: str | None = None
    retry_seconds: float = 300.0
    timeout_seconds: float = 120.0
    license: str | None = None
    language: list[str] = field(default_factory=list)


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
    def run_dir(self) -> Path:
        """The run folder."""
        return Path(self.run.output_dir or f"runs/{self.run.name}")
