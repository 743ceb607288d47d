"""The one exception that ends a command with a single line instead of a traceback."""


class UserError(Exception):
    """Something the user gave is wrong. The message says what was received and what to do."""
