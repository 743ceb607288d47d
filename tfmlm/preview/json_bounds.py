"""Bounds on the JSON of a request, checked before anything is made of it."""

from __future__ import annotations

import numpy as np

from tfmlm.preview.signatures import MAX_RANK
from tfmlm.preview.status import invalid

MAX_DEPTH = MAX_RANK + 2
"""An input in an object in the request."""

MAX_VALUES = 2**20
"""As many as one input may have by gRPC."""

MAX_PARTS = 2**16
"""Lists, objects and strings: each takes the memory and the time of a dozen numbers."""

_STEPS = np.zeros(256, np.int8)
_STEPS[[*b"[{"]] = 1
_STEPS[[*b"]}"]] = -1


def check_json(body: bytes, max_texts: int) -> None:
    """Refuses JSON that is nested too deeply or has too many parts; whether it is JSON is not looked at.

    Python makes lists under the lock that all threads share: 4 MiB of `[]` stopped the server for seconds.
    This takes a twentieth of that, and NumPy gives up the lock meanwhile.

    Args:
        body: the request.
        max_texts: texts in one request; with more of them there may be more parts.

    Raises:
        ServingError: says which.
    """
    plain = np.frombuffer(body.replace(rb"\\", b"").replace(rb"\"", b""), np.uint8)
    is_quote = plain == ord('"')
    outside = plain[~np.logical_xor.accumulate(is_quote)]
    steps = _STEPS[outside]
    if np.cumsum(steps, dtype=np.int32).max(initial=0) > MAX_DEPTH:
        raise invalid(f"JSON Parse error: nested too deeply, in more than {MAX_DEPTH} levels")
    num_parts = np.count_nonzero(steps == 1) + np.count_nonzero(is_quote) // 2
    max_parts = max(MAX_PARTS, 16 * max_texts)
    if num_parts > max_parts:
        raise invalid(
            f"the request has {num_parts} lists, objects and strings; at most {max_parts} are taken at once"
        )
    num_values = np.count_nonzero(outside == ord(",")) + 1
    if num_values > MAX_VALUES:
        raise invalid(f"the request has {num_values} values; at most {MAX_VALUES} are taken at once")
