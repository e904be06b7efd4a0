"""Tokenised datasets on disk: made once by several processes, memory-mapped by every run. Imports no torch."""

from __future__ import annotations

from xtuner_core.data.store.open import open_store
from xtuner_core.data.store.read import TokenStore

__all__ = ["TokenStore", "open_store"]
