"""What the workers of a run make sure of before they train: one configuration, one text, one step, one model.

A sum over workers that differ is no error: each would go its own way, and the checkpoints would tell nothing.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from tfmlm.config import Config
from tfmlm.config.load import compare_settings, list_settings
from tfmlm.errors import UserError
from tfmlm.results import Evaluation
from tfmlm.run_folder import RunFolder
from tfmlm.training.checkpoint import TrainingCheckpoint
from tfmlm.training.cluster import gather, name_workers, read_cluster
from tfmlm.training.run_log import read_initial_evaluation
from tfmlm.training.setup import Setup, describe_num_blocks


def agree_on_start(
    config: Config, setup: Setup, checkpoint: TrainingCheckpoint, folder: RunFolder
) -> Evaluation | None:
    """Makes sure that all workers have the same configuration and text.

    Returns:
        The evaluation before the first step, if the chief has it in the log of a checkpoint's run.

    Raises:
        UserError: the workers differ.
        WorkerLostError: one has ended, or does not come.
    """
    # Only the log that belongs to a checkpoint is of this configuration.
    before = read_initial_evaluation(folder.logs_dir) if folder.is_writer and checkpoint.newest else None
    own = {
        "settings": list_settings(config),
        "text": _describe_text(setup) if read_cluster().num_workers > 1 else None,
        "before": before and before._asdict(),
    }
    workers = gather("start", own, config.distribute.wait_seconds)
    for number, worker in enumerate(workers):
        keys = compare_settings(workers[0]["settings"], worker["settings"])
        if keys:
            raise UserError(
                f"{name_workers([number])} has another configuration than the first ({', '.join(keys)}); "
                "start all workers with the same"
            )
        if worker["text"] != workers[0]["text"]:
            raise UserError(
                f"{name_workers([number])} has other text or another tokenizer than the first "
                f"({worker['text']}, not {workers[0]['text']}); give all workers the same files"
            )
    chief: dict[str, float] | None = workers[0]["before"]
    return Evaluation(**chief) if chief else None


def _describe_text(setup: Setup) -> str:
    """Numbers of blocks, and a checksum of the first held-out batch with its masks."""
    batch = next(iter(setup.validation.take(1).as_numpy_iterator()))
    numbers = " and ".join(
        describe_num_blocks(blocks.num_blocks) for blocks in (setup.data.train, setup.data.validation)
    )
    return f"{numbers}, checksum {_add_up([batch[name] for name in sorted(batch)])}"


def restore_together(config: Config, checkpoint: TrainingCheckpoint) -> int:
    """Restores the checkpoint that the chief chooses, at every worker, and makes sure that the weights agree.

    Returns:
        The number of batches trained on; 0 for a new run.

    Raises:
        UserError: a worker cannot follow, or holds other weights.
        WorkerLostError: one has ended, or does not come.
    """
    cluster, wait_seconds = read_cluster(), config.distribute.wait_seconds
    if cluster.num_workers == 1:
        return checkpoint.restore()
    step: int = gather("step", checkpoint.restore() if cluster.is_chief else None, wait_seconds)[0]
    follows = cluster.is_chief or step == 0 or checkpoint.restore_step(step)
    own = {
        "folder": str(checkpoint.folder),
        "checksum": _add_up(checkpoint.list_values()) if follows else None,
    }
    workers: list[dict[str, Any]] = gather("state", own, wait_seconds)
    for number, worker in enumerate(workers):
        if worker["checksum"] is None:
            raise UserError(
                f"{name_workers([number])} cannot read the checkpoint of step {step} in "
                f"{worker['folder']!r}, from which the first goes on; let all workers see the same run "
                "folder, or copy it to each"
            )
        if worker["checksum"] != workers[0]["checksum"]:
            raise UserError(
                f"{name_workers([number])} holds other weights at step {step} than the first; give all "
                "workers the same run folder, the same files in model.name_or_path, and the same packages"
            )
    return step


def _add_up(arrays: list[np.ndarray[Any, Any]]) -> str:
    """A checksum of arrays' bytes: 3 GB/s, and what differs by accident is not found with 1 in 4e9."""
    checksum = 0
    for array in arrays:
        checksum = zlib.crc32(np.ascontiguousarray(array).data, checksum)
    return f"{checksum:08x}"
