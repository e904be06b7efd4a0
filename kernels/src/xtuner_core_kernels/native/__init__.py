"""Operators in C: the sources, and the libraries that were built from them when the distribution was installed."""

from __future__ import annotations
