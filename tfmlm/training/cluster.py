"""The machines of a run, as the environment variable `TF_CONFIG` names them."""

from __future__ import annotations

import json
import os
from typing import NamedTuple

from tfmlm.errors import UserError


class Cluster(NamedTuple):
    """This process among the workers of a run.

    Attributes:
        num_workers: 1 without `TF_CONFIG`.
        number: of this worker, from 0; the first is the chief, which alone writes, pushes and exports.
    """

    num_workers: int = 1
    number: int = 0

    @property
    def is_chief(self) -> bool:
        """Whether this process writes."""
        return self.number == 0


def read_cluster() -> Cluster:
    """Reads `TF_CONFIG`, in which the workers are listed under `worker`, the first of them the chief.

    Raises:
        UserError: it is there and is not of that form.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return Cluster()
    try:
        config = json.loads(text)
        workers = list(config["cluster"]["worker"])
        if config["task"]["type"] != "worker" or set(config["cluster"]) != {"worker"}:
            raise ValueError("a task is of another type than worker")
        number = int(config["task"]["index"])
        if not 0 <= number < len(workers):
            raise ValueError(f"task {number} is none of {len(workers)} workers")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"TF_CONFIG cannot be used ({error}); it must be like "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
        ) from error
    return Cluster(len(workers), number)
