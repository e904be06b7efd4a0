"""The AdamW update, in place."""

from __future__ import annotations
