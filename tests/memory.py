"""The memory that a process has had."""

import re
from pathlib import Path


def read_peak() -> int:
    """Kilobytes that this process has had at most since it began, or since `forget_peak`.

    Not `ru_maxrss`, which of a new process begins at what its parent had: the tests', which have TensorFlow.
    """
    (peak,) = re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(peak)


def forget_peak() -> None:
    """The peak begins anew at what this process has now."""
    Path("/proc/self/clear_refs").write_text("5")
