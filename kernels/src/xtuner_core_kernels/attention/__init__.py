"""Softmax attention within packed documents."""

from __future__ import annotations
