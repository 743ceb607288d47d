"""Prediction, for REST and gRPC alike: a lease, a signature, checks, and the batcher."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass

from tfmlm.preview.memory import Memory, count_bytes
from tfmlm.preview.options import ServeOptions
from tfmlm.preview.signatures import Arrays, Signature
from tfmlm.preview.status import ServingError, invalid
from tfmlm.preview.versions import LoadedVersion, ModelSpec, Versions

_KINDS = {"classify": "classification", "regress": "regression"}
"""Methods of TensorFlow Serving that no export has, and what it calls their signatures."""


@dataclass(frozen=True)
class Prediction:
    """A request to run a signature, whose version is not unloaded meanwhile.

    Attributes:
        signature: what is run.
        version: whose it is.
        options: settings of the server.
        memory: where the inputs are counted.
    """

    signature: Signature
    version: LoadedVersion
    options: ServeOptions
    memory: Memory

    def submit(self, inputs: Arrays) -> Future[Arrays]:
        """Checks the inputs and queues them.

        Returns:
            The outputs to come, or a ServingError. Cancelled before its turn, it is not run.

        Raises:
            ServingError: the signature or the model does not take the inputs, or too much waits.
        """
        self.version.servable.check(
            self.signature, inputs, self.options.max_texts, self.options.max_answer_values
        )
        num_bytes = count_bytes(inputs)
        self.memory.take(num_bytes)
        try:
            future = self.version.batcher.submit(self.signature, inputs)
        except ServingError:
            self.memory.give_back(num_bytes)
            raise
        future.add_done_callback(lambda _: self.memory.give_back(num_bytes))
        return future


class PredictionService:
    """Runs signatures.

    Args:
        versions: what is served.
        options: settings of the server.
        memory: what the requests of all services may hold.
        unknown_signature: makes the error for a name that no signature has; TensorFlow Serving words it in
            one way for REST and in another for gRPC.
    """

    def __init__(
        self,
        versions: Versions,
        options: ServeOptions,
        memory: Memory,
        unknown_signature: Callable[[str], ServingError],
    ) -> None:
        self._versions = versions
        self._options = options
        self._memory = memory
        self._unknown_signature = unknown_signature

    @contextmanager
    def begin(self, spec: ModelSpec, signature_name: str, method: str = "predict") -> Iterator[Prediction]:
        """Leases a version for the time of one request and finds the signature.

        Raises:
            ServingError: there is no such model, version or signature, it is not for this method, or the
                server is stopping.
        """
        with self._versions.lease(spec) as version:
            signature = version.servable.signatures.get(signature_name or "serving_default")
            if signature is None:
                raise self._unknown_signature(signature_name or "serving_default")
            if method in _KINDS:
                raise invalid(
                    f"Expected {_KINDS[method]} signature method_name to be tensorflow/serving/{method}. "
                    f"Was: {signature.method_name}"
                )
            yield Prediction(signature, version, self._options, self._memory)
