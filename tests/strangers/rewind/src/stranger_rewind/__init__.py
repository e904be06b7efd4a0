"""Recomputes the modules of one role in the backward pass."""
