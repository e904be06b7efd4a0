"""Grouped experts of a mixture, no token dropped."""

from __future__ import annotations
