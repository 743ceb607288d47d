"""Mutation tests: `make mutation` changes the code in one place at a time and asks whether a test notices."""
