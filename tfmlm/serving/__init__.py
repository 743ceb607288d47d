"""The preview server, and asking a server of exported models; nothing here needs the rest of the package."""
