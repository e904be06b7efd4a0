"""Log-probabilities of targets from hidden states and head, without the full logits."""

from __future__ import annotations
