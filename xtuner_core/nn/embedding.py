"""The token embedding.

T tokens, V vocabulary, D model width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class TokenEmbedding(nn.Module):
    """A table [V, D]."""

    role = "embed"

    def __init__(self, vocab_size: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, dim))

    def forward(self, token_ids_T: Tensor) -> Tensor:
        """Rows of the table, [T, D]."""
        return functional.embedding(token_ids_T, self.weight)
