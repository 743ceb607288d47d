"""tfmlm: masked language models with TensorFlow, from text to TensorFlow Serving."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfmlm.api import fill as fill
    from tfmlm.api import train as train

# transformers 4.52's TensorFlow models are Keras 2 code. TensorFlow reads this once, when it is first
# imported, so it is set here, before any module of the package can import TensorFlow.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# Without a GPU the C++ runtime logs a CUDA error at every start; what matters reaches Python as an exception.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# gRPC logs each failed attempt to connect, and says the same in the error that it raises.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

__version__ = "0.1.0"

_API = ("fill", "train")


def __getattr__(name: str) -> Any:
    """Loads what is for scripts and notebooks, and TensorFlow with it, when it is first asked for."""
    if name in _API:
        return getattr(import_module("tfmlm.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_API])
