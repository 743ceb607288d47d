"""A client of TensorFlow Serving for exports of tfmlm, without TensorFlow."""

from tfmlm.client.client import FilledText, FillMaskClient
from tfmlm.client.options import ClientOptions

__all__ = ["ClientOptions", "FillMaskClient", "FilledText"]
