"""The gated activation SwiGLU."""

from __future__ import annotations
