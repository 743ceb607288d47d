"""From batches to a trained and evaluated model."""
