"""The masked-language-modelling collator as TensorFlow ops, reproducible example by example.

Every random number is a pure function of (seed, epoch, example, position): a counter-based generator,
so any batch can be made again, in any order, on any machine, without generator state to save.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from tfmlm.config import MaskingConfig

IGNORE_LABEL = -100
"""Label of a position that the loss does not count, Hugging Face's convention."""

EVALUATION_EPOCH = 2**31 - 1
"""Epoch number whose masks evaluation uses: the same on every pass and for every checkpoint."""

_GOLDEN_GAMMA = 0x9E3779B97F4A7C15
_ROLL_ACTION_STREAM = 0x5851F42D4C957F2D


@dataclass(frozen=True)
class MaskableVocabulary:
    """The parts of a tokenizer that masking needs.

    Attributes:
        mask_token_id: the id that hides a chosen token.
        protected_ids: ids that are never chosen: padding, CLS, SEP, BOS, EOS and the mask token itself.
        random_ids: ids that a random replacement may draw: every entry that is not a special token.
    """

    mask_token_id: int
    protected_ids: NDArray[np.int32]
    random_ids: NDArray[np.int32]

    @classmethod
    def from_tokenizer(cls, tokenizer: PreTrainedTokenizerBase) -> MaskableVocabulary:
        """Reads the ids off a tokenizer that has a mask token."""
        protected = {
            tokenizer.pad_token_id,
            tokenizer.cls_token_id,
            tokenizer.sep_token_id,
            tokenizer.bos_token_id,
            tokenizer.eos_token_id,
            tokenizer.mask_token_id,
        } - {None, tokenizer.unk_token_id}
        words = set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)
        return cls(
            mask_token_id=int(tokenizer.mask_token_id),
            protected_ids=np.array(sorted(protected), np.int32),
            random_ids=np.array(sorted(words), np.int32),
        )


@dataclass(frozen=True)
class MaskingCollator:
    """Turns stacked blocks into model inputs and labels, inside the TensorFlow graph.

    Each maskable token, or with `masking.whole_word` each word, is chosen with probability `masking.rate`.
    A chosen token becomes the mask token
    with probability `mask_fraction`, a random word with `random_fraction`, and stays itself otherwise
    (0.8, 0.1 and 0.1 in BERT, https://arxiv.org/abs/1810.04805, section 3.1).
    """

    vocabulary: MaskableVocabulary
    masking: MaskingConfig
    seed: int

    def __call__(
        self, blocks: dict[str, tf.Tensor], epoch: tf.Tensor, progress: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """Masks a batch.

        Args:
            blocks: `input_ids` int32 [B, L], `special_tokens_mask` bool or integer [B, L],
                `num_tokens` int32 [B] (what follows is padding), `example_id` int64 [B]; for whole words also
                `starts_word` bool or integer [B, L].
            epoch: int64 [] or [B], the pass over the data that each row belongs to.
            progress: float32 [B], how far the training is at each row, from 0 to 1, where the rate changes.

        Returns:
            `input_ids` int32 [B, L], `attention_mask` int32 [B, L], `labels` int32 [B, L] with -100
            wherever a token was not chosen; `starts_text` if the blocks have it.
        """
        token_ids = blocks["input_ids"]
        length = tf.shape(token_ids)[1]
        attended = tf.range(length)[tf.newaxis, :] < blocks["num_tokens"][:, tf.newaxis]
        maskable = attended & ~tf.cast(blocks["special_tokens_mask"], tf.bool)
        for protected_id in self.vocabulary.protected_ids:
            maskable &= token_ids != int(protected_id)

        position = tf.cast(tf.range(length), tf.uint64)[tf.newaxis, :]
        row_key = self._row_keys(blocks["example_id"], epoch)[:, tf.newaxis]
        token_draw = _draw(row_key, position)
        action = _mix(token_draw ^ tf.constant(_ROLL_ACTION_STREAM, tf.uint64))
        choice = token_draw
        if self.masking.whole_word:
            # All tokens of a word share its number in the row, and so its draw.
            word = tf.cumsum(tf.cast(blocks["starts_word"], tf.int32), axis=1)
            choice = _draw(row_key, tf.cast(word, tf.uint64))

        chosen = maskable & (_to_unit_interval(choice) < self._rate(progress))
        roll = _to_unit_interval(action)
        hidden = chosen & (roll < self.masking.mask_fraction)
        replaced_below = self.masking.mask_fraction + self.masking.random_fraction
        replaced = chosen & ~hidden & (roll < replaced_below)

        masked = {
            "input_ids": tf.where(
                hidden,
                self.vocabulary.mask_token_id,
                tf.where(replaced, self._random_words(action), token_ids),
            ),
            "attention_mask": tf.cast(attended, tf.int32),
            "labels": tf.where(chosen, token_ids, IGNORE_LABEL),
        }
        return masked | {name: blocks[name] for name in ("starts_text",) if name in blocks}

    def for_evaluation(self) -> MaskingCollator:
        """The same collator at the rate of evaluation."""
        masking = replace(self.masking, rate=self.masking.held_out_rate, final_rate=None)
        return replace(self, masking=masking)

    def _rate(self, progress: tf.Tensor | None) -> tf.Tensor | float:
        """The share that is chosen, [] or [B, 1]."""
        first, last = self.masking.rate, self.masking.final_rate
        if progress is None or last is None:
            return first
        return (first + (last - first) * progress)[:, tf.newaxis]

    def _row_keys(self, example_id: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """One uint64 key [B] for each (seed, epoch, example)."""
        epoch_key = _mix(_mix(tf.constant(self.seed % 2**64, tf.uint64)) + tf.cast(epoch, tf.uint64))
        return _mix(epoch_key + tf.cast(example_id, tf.uint64))

    def _random_words(self, action: tf.Tensor) -> tf.Tensor:
        """Draws ids from the low 32 bits of `action`; the roll uses the high 24, so they are independent."""
        low_bits = tf.cast(action & tf.constant(0xFFFFFFFF, tf.uint64), tf.int64)
        # Multiply-shift instead of modulo (Lemire, https://arxiv.org/abs/1805.10941): no division, and the
        # bias is below vocabulary / 2**32.
        index = tf.bitwise.right_shift(low_bits * len(self.vocabulary.random_ids), np.int64(32))
        return tf.gather(tf.constant(self.vocabulary.random_ids), index)


def _draw(row_key: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """The random bits of the numbered unit of each row, uint64 [B, L]."""
    return _mix(row_key + number * tf.constant(_GOLDEN_GAMMA, tf.uint64))


def _mix(value: tf.Tensor) -> tf.Tensor:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014, doi 10.1145/2660193.2660195), on uint64."""
    value += tf.constant(_GOLDEN_GAMMA, tf.uint64)
    value = (value ^ _shift_right(value, 30)) * tf.constant(0xBF58476D1CE4E5B9, tf.uint64)
    value = (value ^ _shift_right(value, 27)) * tf.constant(0x94D049BB133111EB, tf.uint64)
    return value ^ _shift_right(value, 31)


def _shift_right(value: tf.Tensor, bits: int) -> tf.Tensor:
    return tf.bitwise.right_shift(value, tf.constant(bits, tf.uint64))


def _to_unit_interval(bits: tf.Tensor) -> tf.Tensor:
    """Float32 in [0, 1) from the high 24 bits of a uint64: every value is exact in a float32."""
    return tf.cast(_shift_right(bits, 40), tf.float32) * np.float32(2.0**-24)
