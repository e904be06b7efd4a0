"""Choice of experts by softmax and top-k."""

from __future__ import annotations
