"""From a trained model to a SavedModel, and to filled masks."""
