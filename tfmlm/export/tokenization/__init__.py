"""Tokenization as TensorFlow ops, equal to a Hugging Face fast tokenizer, for exports that take text."""
