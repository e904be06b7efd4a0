"""Reads ledgers: a title, a bar and a text on each line."""
