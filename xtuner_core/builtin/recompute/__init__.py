"""Computes parts of a model again in the backward pass instead of keeping what they computed."""
