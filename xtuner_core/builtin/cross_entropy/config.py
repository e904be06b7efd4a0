"""Configuration of the loss cross_entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(kw_only=True)
class CrossEntropyConfig:
    """Negative log-likelihood of the labels."""

    reduction: Literal["token", "document"] = "token"
    """`token`: weighted mean over a step's tokens. `document`: mean over documents of their own."""
