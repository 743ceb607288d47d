"""The preview server, `tfmlm serve`: an export answers as TensorFlow Serving would let it."""
