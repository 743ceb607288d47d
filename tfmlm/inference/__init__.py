"""A trained model in use: masks filled, targets and texts scored."""
