"""Asking and being a server: a client of TensorFlow Serving, and a preview server with its interface."""
