"""Why a tokenizer cannot become ops."""


class UnsupportedTokenizerError(Exception):
    """The tokenizer has a part that the graph has not; the message names it."""
