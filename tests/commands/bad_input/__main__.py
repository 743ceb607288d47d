"""Prints the table as `docs/bad-input.md`."""

import sys

from tests.commands.bad_input import write_page

sys.stdout.write(write_page())
