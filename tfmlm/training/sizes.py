"""How large a model a configuration asks for: one that this machine cannot hold is refused, and not built.

A `config.json` is a few bytes, whatever it asks for. Without this, ten million layers were hours of work.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from tfmlm.errors import UserError

_MOST = {"layers": 1000, "groups": 1000, "networks": 1000, "labels": 100_000}
"""By the last word of a field, the most that is made one by one, in Python, whatever the size of each."""

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def check_counts(fields: Mapping[str, object]) -> None:
    """Refuses counts that already the class of a configuration would take hours for.

    Raises:
        UserError: names the field.
    """
    for name, value in fields.items():
        most = _MOST.get(str(name).rpartition("_")[2])
        if most is not None and isinstance(value, int | float) and value > most:
            raise UserError(f"model.config.{name} is {_show(value)}; it must be at most {most}")


def check_size(model_config: PretrainedConfig) -> None:
    """Refuses a model whose parameters alone are more than this machine's memory.

    Raises:
        UserError: names the field if it is a single one, or the number of parameters.
    """
    memory = measure_memory()
    with suppress(AttributeError, TypeError):  # of a field that is no number; making the model says so
        hidden = max(1, model_config.hidden_size)
        for name, value in [("hidden_size", hidden), *_list_sizes(model_config)]:
            if 4 * value * hidden > memory:
                raise UserError(
                    f"model.config.{name} is {_show(value)}, which with hidden_size {_show(hidden)} needs "
                    f"more than the {memory / 1e9:,.0f} GB of memory of this machine; check the configuration"
                )
        num_parameters = estimate_parameters(model_config)
        if 4 * num_parameters > memory:
            raise UserError(
                f"the {model_config.model_type} model has about {_show(num_parameters)} parameters by its "
                f"configuration, and this machine has {memory / 1e9:,.0f} GB of memory; check "
                "num_hidden_layers, hidden_size and the other sizes"
            )


def estimate_parameters(model_config: PretrainedConfig) -> int:
    """The parameters of the embeddings and of the layers' large matrices, to within a factor of two or so."""
    hidden = model_config.hidden_size
    inner = getattr(model_config, "intermediate_size", None) or getattr(
        model_config, "hidden_dim", 4 * hidden
    )
    layers = getattr(model_config, "num_hidden_groups", model_config.num_hidden_layers)  # ALBERT's are shared
    width = getattr(model_config, "embedding_size", None) or hidden
    positions = getattr(model_config, "max_position_embeddings", 0)
    return int(
        model_config.vocab_size * width + positions * hidden + layers * (4 * hidden**2 + 2 * hidden * inner)
    )


def _list_sizes(model_config: PretrainedConfig) -> Iterator[tuple[str, Any]]:
    """Fields that are numbers, lists included, but for numbers of tokens and labels."""
    for name, value in model_config.to_dict().items():
        if not name.endswith(("_id", "_ids", "_index", "id2label", "label2id")):
            for item in value if isinstance(value, list) else [value]:
                if type(item) in (int, float):
                    yield name, item


def measure_memory() -> int:
    """Bytes that this process may take: of the machine, its container, and `ulimit -v`."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError, ValueError):  # there is no such file, or it says `max`
        limits.append(int(_CGROUP_LIMIT.read_text()))
    of_process = resource.getrlimit(resource.RLIMIT_AS)[0]
    return min(limits + [of_process] * (of_process != resource.RLIM_INFINITY))


def _show(value: float) -> str:
    """A number that may have hundreds of digits."""
    return f"{value:,}" if abs(value) < 10**15 else f"{float(min(value, 10**300)):.0e}"
