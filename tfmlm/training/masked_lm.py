"""The Keras model that `fit` trains: a Hugging Face masked language model with the right step and loss."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import tensorflow as tf
from transformers import TFPreTrainedModel

from tfmlm.config import Config
from tfmlm.data.masking import IGNORE_LABEL
from tfmlm.data.pipeline import Batch
from tfmlm.training.heads import ARCHITECTURES, compute_logits, compute_logits_at
from tfmlm.training.layers import compute_gelu_in_float32, make_dropout_stateless, rematerialize
from tfmlm.training.lengths import compute_at_length, list_lengths, number_lengths
from tfmlm.training.loss import (
    MaskedPositions,
    count_slots,
    gather_masked_positions,
    sum_cross_entropy,
    sum_in_top,
)
from tfmlm.training.optimizer import choose_trained
from tfmlm.training.text_borders import keep_within_texts

_Differentiated = tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]
"""Gradients, loss float32 [] and overflow int32 []."""

_Computed = TypeVar("_Computed")


class MaskedLanguageModel(tf.keras.Model):
    """Trains and evaluates a `TFAutoModelForMaskedLM` with logits only at masked positions.

    One call of `train_step` is one optimizer step: the batch of a replica is cut into
    `gradient_accumulation_steps` micro-batches, sums of losses and of gradients are added over them and
    over the replicas, and divided once by the global number of masked tokens.

    Attributes:
        model: the Hugging Face model, which owns the weights.
        trained_variables: those of its variables that are not frozen.
        step: int64 [], batches trained on; the optimizer's own count leaves out steps that float16 skips.
        stop_requests: int64 [], 1 if this worker was told to end; the sum of all is among a step's figures.
        overflow: int64 [], masked tokens that have found no slot; Keras tells of several steps in one
            execution only what the last one gives, so the sum must be kept here.
        tokens: int64 [], tokens trained on, padding left out.
    """

    def __init__(self, model: TFPreTrainedModel, config: Config) -> None:
        super().__init__()
        self.model = model
        self.built = True  # as the model in it is; Keras summarizes no other
        self.trained_variables = choose_trained(model.trainable_variables, config.model)
        # Every replica counts the same, so nothing is aggregated; under XLA on several GPUs nothing could be,
        # for replicas are not merged there (tf-keras issue 385).
        self.step, self.overflow, self.tokens, self.stop_requests = (
            tf.Variable(0, dtype=tf.int64, trainable=False) for _ in range(4)
        )
        self._seed = config.run.seed
        self._noise = make_dropout_stateless(model)
        self._borders = keep_within_texts(model) if config.data.attend_within_texts else None
        if config.train.rematerialize:
            rematerialize(model, self._noise)
        if (
            self.compute_dtype == "bfloat16"
            and "CPU" in tf.distribute.get_strategy().extended.worker_devices[0]
        ):
            compute_gelu_in_float32(model)
        # The step's figures are already those of the whole batch; Keras would add the replicas' up again.
        self.distribute_reduction_method = "first"
        self._num_micro_batches = config.train.gradient_accumulation_steps
        self._max_grad_norm = config.optimizer.max_grad_norm
        self._has_static_shapes = config.train.xla or isinstance(
            tf.distribute.get_strategy(), tf.distribute.TPUStrategy
        )
        block_size = config.data.block_size
        self._lengths = (
            [block_size] if config.data.pack else list_lengths(block_size, self._has_static_shapes)
        )
        masked_only = config.train.logits == "masked" and model.config.model_type in ARCHITECTURES
        masking = config.masking
        highest_rate = max(masking.rate, masking.final_rate or 0.0, masking.held_out_rate)
        rows = config.train.per_replica_batch_size
        self._num_slots = [
            count_slots(rows * length, highest_rate, masking.whole_word) if masked_only else rows * length
            for length in self._lengths
        ]
        # float64: a float32 sum over a large evaluation set loses the sixth digit of the perplexity.
        self._means = {
            name: tf.keras.metrics.Mean(name, dtype=tf.float64) for name in ("loss", "top_1", "top_5")
        }
        self._stops = tf.keras.metrics.Sum("stop_requests")
        self._compute_gradients = self._accumulate
        self._compute_sums = self._sum_up

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """Metrics that Keras resets before each evaluation."""
        return [*self._means.values(), self._stops]

    def compile(
        self,
        optimizer: tf.keras.optimizers.legacy.Optimizer | None = None,
        jit_compile: bool = False,
        steps_per_execution: int = 1,
    ) -> None:
        """Takes the optimizer and makes its variables; call it inside the strategy's scope.

        Without an optimizer the model can only evaluate.
        """
        if jit_compile and tf.distribute.get_strategy().num_replicas_in_sync > 1:
            # TensorFlow compiles no sum over CPUs of several workers, and its compiled sums over GPUs have
            # open faults (its issues 58787 and 61314): each replica compiles what it computes by itself.
            jit_compile = False
            self._compute_gradients = tf.function(self._accumulate, jit_compile=True)
            self._compute_sums = tf.function(self._sum_up, jit_compile=True)
        if optimizer is None:
            super().compile(jit_compile=jit_compile)
            return
        # Left to the first step, the slots would be made inside a tf.function, which fails for two replicas,
        # and a checkpoint restored before that step would find no place for them. No public method does it.
        optimizer._create_all_weights(self.trained_variables)  # noqa: SLF001
        self._scales_loss = self.compute_dtype == "float16"
        if self._scales_loss:
            optimizer = tf.keras.mixed_precision.LossScaleOptimizer(optimizer)
        super().compile(optimizer=optimizer, jit_compile=jit_compile, steps_per_execution=steps_per_execution)

    def call(self, batch: Batch, training: bool = False) -> tf.Tensor:
        """Logits [B, L, V] of a batch."""
        with self._within_texts(batch):
            return compute_logits(self.model, batch["input_ids"], batch["attention_mask"], training)

    def _compute_logits(
        self, batch: Batch, num_slots: int | tf.Tensor, training: bool
    ) -> tuple[MaskedPositions, tf.Tensor]:
        positions = gather_masked_positions(batch["labels"], num_slots)
        with self._within_texts(batch):
            logits = compute_logits_at(
                self.model, batch["input_ids"], batch["attention_mask"], positions.indices, training
            )
        return positions, logits

    def _within_texts(self, batch: Batch) -> AbstractContextManager[None]:
        return self._borders.within(batch["starts_text"]) if self._borders else nullcontext()

    def train_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """One optimizer step.

        Returns:
            `loss` float32 [], the token-weighted mean over the global batch; `masked_tokens` float32 [], its
            weight; `overflow` int64 [], masked tokens that found no slot since the model was made;
            `tokens` int64 [], those trained on since then, padding left out;
            `learning_rate` float32 []; `gradient_norm` float32 [], global and before clipping;
            `stop_requests` float32 [], more than 0 if a worker was told to end.
        """
        replicas = tf.distribute.get_replica_context()
        # In one sum with what is summed anyway: all workers learn of it at the same step, for nothing.
        own = [self._count_kept(batch), tf.reduce_sum(batch["attention_mask"]), self.stop_requests]
        counts = tf.stack([tf.cast(number, tf.float32) for number in own])
        weight, num_tokens, stop_requests = tf.unstack(replicas.all_reduce("SUM", counts))
        seed = self._seed_noise(replicas.replica_id_in_sync_group)
        gradients, loss, overflow = self._compute_gradients(batch, weight, seed)
        gradients = replicas.all_reduce("SUM", gradients)
        if self._scales_loss:
            gradients = self.optimizer.get_unscaled_gradients(gradients)
        norm = tf.linalg.global_norm(gradients)
        if self._max_grad_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self._max_grad_norm, use_norm=norm)
        learning_rate = self.optimizer.learning_rate(self.optimizer.iterations)
        self.optimizer.apply_gradients(
            zip(gradients, self.trained_variables, strict=True), experimental_aggregate_gradients=False
        )
        self.step.assign_add(1)
        self.overflow.assign_add(tf.cast(replicas.all_reduce("SUM", overflow), tf.int64))
        self.tokens.assign_add(tf.cast(num_tokens, tf.int64))
        return {
            "loss": replicas.all_reduce("SUM", loss),
            "masked_tokens": weight,
            "overflow": tf.identity(self.overflow),
            "tokens": tf.identity(self.tokens),
            "learning_rate": learning_rate,
            "gradient_norm": norm,
            "stop_requests": stop_requests,
        }

    def test_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Adds one batch to the token-weighted mean loss and accuracies, and gives them.

        Also `stop_requests`, as of `train_step`.
        """
        sums, weight = self._compute_sums(batch)
        for name, mean in self._means.items():
            mean.update_state(tf.math.divide_no_nan(sums[name], weight), sample_weight=weight)
        self._stops.update_state(self.stop_requests)
        return {metric.name: metric.result() for metric in self.metrics}

    def _sum_up(self, batch: Batch) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Sums of a batch over its masked tokens, and their number, each float32 []."""
        # The last batch is filled up with rows of no token, and ESM divides by their number.
        first = tf.one_hot(0, tf.shape(batch["attention_mask"])[1], dtype=batch["attention_mask"].dtype)
        batch = batch | {"attention_mask": tf.maximum(batch["attention_mask"], first)}
        return self._compute_at_length(self._sum_up_cut, batch)

    def _sum_up_cut(self, batch: Batch, num_slots: int | tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        positions, logits = self._compute_logits(batch, num_slots, training=False)
        sums = {
            "loss": sum_cross_entropy(logits, positions.labels, positions.weights),
            "top_1": sum_in_top(logits, positions.labels, positions.weights, 1),
            "top_5": sum_in_top(logits, positions.labels, positions.weights, 5),
        }
        return sums, tf.reduce_sum(positions.weights)

    def _compute_at_length(self, compute: Callable[[Batch, Any], _Computed], batch: Batch) -> _Computed:
        """See `lengths.compute_at_length`."""
        return compute_at_length(compute, batch, self._lengths, self._num_slots, self._has_static_shapes)

    def _seed_noise(self, replica: tf.Tensor) -> tf.Tensor:
        """Dropout's seed of this step and replica, int64 [2]."""
        run_and_step = tf.stack([tf.constant(self._seed % 2**63, tf.int64), tf.identity(self.step)])
        return tf.random.fold_in(run_and_step, tf.cast(replica, tf.int64))

    def _accumulate(self, batch: Batch, weight: tf.Tensor, seed: tf.Tensor) -> _Differentiated:
        """`_differentiate` summed over the micro-batches, of which memory and the graph hold one."""
        if self._num_micro_batches == 1:
            return self._differentiate(batch, weight, seed)
        micro_batches = self._split_batch(batch)

        def add_one(
            number: tf.Tensor, gradients: list[tf.Tensor], loss: tf.Tensor, overflow: tf.Tensor
        ) -> tuple[tf.Tensor, list[tf.Tensor], tf.Tensor, tf.Tensor]:
            own_seed = tf.random.fold_in(seed, tf.cast(number, tf.int64))
            micro_batch = {name: parts[number] for name, parts in micro_batches.items()}
            more_gradients, more_loss, more_overflow = self._differentiate(micro_batch, weight, own_seed)
            gradients = [total + part for total, part in zip(gradients, more_gradients, strict=True)]
            return number + 1, gradients, loss + more_loss, overflow + more_overflow

        nothing = [tf.zeros(variable.shape, variable.dtype) for variable in self.trained_variables]
        _, gradients, loss, overflow = tf.while_loop(
            lambda number, *_: number < self._num_micro_batches,
            add_one,
            (tf.constant(0), nothing, tf.constant(0.0), tf.constant(0)),
            parallel_iterations=1,
            maximum_iterations=self._num_micro_batches,
        )
        return gradients, loss, overflow

    def _split_batch(self, batch: Batch) -> Batch:
        """The rows of a replica's batch as micro-batches, [num_micro_batches, rows, ...]."""
        return {
            name: tf.reshape(column, [self._num_micro_batches, -1, *column.shape[1:]])
            for name, column in batch.items()
        }

    def _differentiate(self, batch: Batch, weight: tf.Tensor, seed: tf.Tensor) -> _Differentiated:
        """Gradients and loss of a micro-batch, as its share of the global mean, and its overflow."""

        def differentiate(cut: Batch, num_slots: int | tf.Tensor) -> _Differentiated:
            self._noise.begin(seed)
            with tf.GradientTape() as tape:
                positions, logits = self._compute_logits(cut, num_slots, training=True)
                loss_sum = sum_cross_entropy(logits, positions.labels, positions.weights)
                loss = tf.math.divide_no_nan(loss_sum, weight)
                scaled = self.optimizer.get_scaled_loss(loss) if self._scales_loss else loss
            gradients = tape.gradient(scaled, self.trained_variables, unconnected_gradients="zero")
            # The tied embedding's gradient is dense through the head: keeping it sparse would save nothing.
            return [tf.convert_to_tensor(gradient) for gradient in gradients], loss, positions.overflow

        return self._compute_at_length(differentiate, batch)

    def _count_kept(self, batch: Batch) -> tf.Tensor:
        """Masked tokens of a replica's batch that have a slot in their micro-batch, float32 []."""
        micro_batches = self._split_batch(batch)
        is_chosen = tf.cast(micro_batches["labels"] != IGNORE_LABEL, tf.int32)
        chosen = tf.reduce_sum(is_chosen, axis=[1, 2])
        num_slots = tf.gather(self._num_slots, number_lengths(micro_batches["attention_mask"], self._lengths))
        return tf.reduce_sum(tf.cast(tf.minimum(chosen, num_slots), tf.float32))
