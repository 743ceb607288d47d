"""From any source of text to batches of masked blocks."""
