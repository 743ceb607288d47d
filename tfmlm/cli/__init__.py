"""The command line: a file for each command, with its arguments, its function and what it prints."""
