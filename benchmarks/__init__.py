"""Ours against the Hugging Face guide's recipe, both measured in the same run: `python -m benchmarks`."""

import tfmlm  # noqa: F401  # settings that TensorFlow reads when it is first imported
