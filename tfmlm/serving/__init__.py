"""Asking a server of exported models over the network; nothing here needs the rest of the package."""
