"""Texts with one mask and with several, as the byte-level tokenizer writes it."""

TEXTS = ["Return the <mask> size.", "Load the default <mask> of the <mask> file, if it exists."]
