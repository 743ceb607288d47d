"""Hugging Face's fast tokenizers as TensorFlow ops, so that an export takes text.

tensorflow-text and keras-hub have such ops too. Compared with the tokenizers themselves, tensorflow-text's
`BertTokenizer` differs on about one text in 300, its SentencePiece op wherever float32 breaks a tie, and
keras-hub's byte-level BPE wherever white space repeats (201 of 304 real texts). So the tables here are read
off the tokenizers library, and `parity` compares before an export relies on them.
"""


class UnsupportedTokenizerError(Exception):
    """A tokenizer has a part that the graph has not; the message names it."""
