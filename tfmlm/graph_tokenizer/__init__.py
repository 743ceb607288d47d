"""Hugging Face's fast tokenizers as TensorFlow ops, compared with the tokenizers themselves."""
