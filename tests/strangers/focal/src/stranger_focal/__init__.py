"""Focal loss on tokens."""
