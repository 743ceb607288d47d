"""tfmlm: masked language models with TensorFlow, from text to TensorFlow Serving."""

import os

# transformers 4.52's TensorFlow models are Keras 2 code. TensorFlow reads this once, when it is first
# imported, so it is set here, before any module of the package can import TensorFlow.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# Without a GPU the C++ runtime logs a CUDA error at every start; what matters reaches Python as an exception.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# gRPC logs each failed attempt to connect, and says the same in the error that it raises.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

__version__ = "0.1.0"
