"""How far the training is: a bar on a terminal, else plain lines."""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import ExitStack
from statistics import median
from typing import Any

import tensorflow as tf
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from tfmlm.training.optimizer import WarmupDecay
from tfmlm.training.run_log import RunLog

_LOGGER = logging.getLogger(__name__)

_LINE_SECONDS = 20.0
"""Between two lines: a log file of an hour has 180 of them."""

_PACE_STEPS = 50
"""Steps whose median time tells the time that is left."""


def make_progress(schedule: WarmupDecay, log: RunLog) -> ProgressBar | ProgressLines:
    """The bar or the lines, as suits standard error."""
    return ProgressBar(schedule, log) if sys.stderr.isatty() else ProgressLines(schedule, log)


class ProgressBar(tf.keras.callbacks.Callback):
    """Shows loss, tokens/s and the time left as a bar, above which other lines are written."""

    def __init__(self, schedule: WarmupDecay, log: RunLog) -> None:
        super().__init__()
        self._schedule = schedule
        self._log = log
        self._bar = tqdm(disable=True)
        self._redirected = ExitStack()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Draws the bar."""
        has_colors = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._redirected.enter_context(logging_redirect_tqdm([logging.getLogger("tfmlm")]))
        self._bar = tqdm(
            desc="training",
            total=int(self._schedule.total_steps.numpy()),
            initial=self._log.step,
            unit="step",
            bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {remaining} left{postfix}",
            dynamic_ncols=True,
            colour="green" if has_colors else None,
        )

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Moves the bar."""
        self._bar.total = int(self._schedule.total_steps.numpy())
        self._bar.set_postfix_str(_describe(self._log, logs), refresh=False)
        self._bar.update(self._log.step - self._bar.n)

    def close(self) -> None:
        """Ends the bar's line, finished or not: an error's line must not be written behind it."""
        self._bar.close()
        self._redirected.close()


class ProgressLines(tf.keras.callbacks.Callback):
    """Logs loss, tokens/s and the time left: after the first step, now and then, and after the last."""

    def __init__(self, schedule: WarmupDecay, log: RunLog) -> None:
        super().__init__()
        self._schedule = schedule
        self._log = log
        self._last_time = -_LINE_SECONDS

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Logs a line if it is time."""
        total_steps = int(self._schedule.total_steps.numpy())
        now = time.monotonic()
        if now - self._last_time < _LINE_SECONDS and self._log.step < total_steps:
            return
        self._last_time = now
        pace = median(self._log.step_seconds[-_PACE_STEPS:] or [self._log.seconds])
        left = tqdm.format_interval(max(0, total_steps - self._log.step) * pace)
        _LOGGER.info(
            "step %d of %d, %s left, %s", self._log.step, total_steps, left, _describe(self._log, logs)
        )

    def close(self) -> None:
        """Nothing is open."""


def _describe(log: RunLog, logs: dict[str, Any] | None) -> str:
    speed = log.speeds[-1] if log.speeds else log.tokens_per_second
    return f"loss {float((logs or {})['loss']):.3f}, {speed:,.0f} tokens/s"
