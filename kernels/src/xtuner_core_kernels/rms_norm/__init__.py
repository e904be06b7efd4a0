"""Root-mean-square normalisation over the last dim."""

from __future__ import annotations
