"""The exceptions that end a command with a single line instead of a traceback."""


class UserError(Exception):
    """Something the user gave is wrong. The message says what was received and what to do."""


class PreemptedError(Exception):
    """The process was told to end (SIGTERM) and has saved its work."""


class WorkerLostError(Exception):
    """Another worker of the same run is gone, and this one cannot go on alone."""


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its kind if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
