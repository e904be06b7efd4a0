"""Rotary position embedding, with RMS normalisation of each head before it where a model has that."""

from __future__ import annotations
