"""Dispatchers all_to_all and naive."""
