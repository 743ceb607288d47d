"""The commands: each adds its arguments to the parser, and is one function of the parsed options."""
