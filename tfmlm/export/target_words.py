"""From words whose probabilities are wanted to their token ids, in the graph."""

from __future__ import annotations

import tensorflow as tf
from transformers import PreTrainedTokenizerFast

from tfmlm.graph_tokenizer.tokenizer import GraphTokenizer


class TargetWords(tf.Module):
    """Finds words in the vocabulary, as `tfmlm predict --targets` does, and refuses those that are not there.

    Args:
        tokenizer: the model's.
        tokenize: the same as ops.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, tokenize: GraphTokenizer) -> None:
        super().__init__()
        self._tokenize = tokenize
        vocabulary = tokenizer.get_vocab()
        self._ids = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                list(vocabulary), list(vocabulary.values()), tf.string, tf.int32
            ),
            default_value=-1,
        )
        self._unknown_id = -1 if tokenizer.unk_token_id is None else int(tokenizer.unk_token_id)

    def __call__(self, targets: tf.Tensor) -> tf.Tensor:
        """The ids of words.

        A word is looked up as it is. One that is not there is tokenized, and must be one known token: where
        the vocabulary marks spaces (`Ġsize`, `▁size`), ` size` is the word with a space before it.

        Args:
            targets: string [N, T]; an empty one is none.

        Returns:
            int32 [N, T]; -1 is none.
        """
        words = tf.reshape(targets, [-1])
        is_none = words == ""
        as_they_are = self._ids.lookup(words)
        pieces = self._tokenize(tf.where(as_they_are < 0, words, ""))
        first = pieces[:, :1].to_tensor(-1, shape=[None, 1])[:, 0]
        is_one = (pieces.row_lengths() == 1) & (first != self._unknown_id)
        found = tf.where(as_they_are >= 0, as_they_are, tf.where(is_one, first, -1))
        found = tf.where(is_none, -1, found)
        is_refused = ~is_none & (found < 0)
        check = tf.debugging.Assert(
            ~tf.reduce_any(is_refused),
            ["a target must be one token of the vocabulary, and is", tf.boolean_mask(words, is_refused)],
        )
        with tf.control_dependencies([check]):
            return tf.reshape(found, tf.shape(targets))
