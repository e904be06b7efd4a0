"""Log-probabilities of targets in C (``native/log_probs.c``): kept for the backward pass where that fits, else again.

Kept of each token are its exponentials and their sum; see the source for what the backward pass makes of them.

Shapes: T tokens, N tokens of one chunk, D model width, V vocabulary.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from xtuner_core_kernels.native.library import call, native_float32
from xtuner_core_kernels.operator import Implementation, Use

# Of exponentials that lie in one piece: below the size at which the C library asks the system for fresh pages at every
# allocation. A chunk, where they are not kept, is one piece.
PIECE_BYTES = 16 * 2**20
BLOCK = 96  # tokens of a task, which divide a piece
# Between two rows: those of a vocabulary that is a power of two would share few lines of a cache.
PADDING = 16


class _Problem(ctypes.Structure):
    """``LogProbs`` of ``log_probs.c``."""

    _fields_ = [
        *((name, ctypes.c_long) for name in ("tokens", "dim", "vocab", "stride", "piece")),
        *((name, ctypes.c_void_p) for name in ("hidden", "head", "targets", "pieces", "sum", "log_probs")),
    ]


class _Inputs(NamedTuple):
    hidden_ND: Tensor
    head_VD: Tensor
    targets_N: Tensor


class _Scores(NamedTuple):
    sum_N: Tensor
    log_probs_N: Tensor
    pieces: tuple[Tensor, ...]  # exponentials, in rows that are PADDING longer than the vocabulary


def _piece_rows(vocab: int) -> int:
    return max(1, PIECE_BYTES // (4 * BLOCK * (vocab + PADDING))) * BLOCK


def _call(name: str, inputs: _Inputs, scores: _Scores, *others: Tensor) -> None:
    vocab = len(inputs.head_VD)
    pieces = torch.tensor([piece.data_ptr() for piece in scores.pieces], dtype=torch.int64)
    addresses = (x.data_ptr() for x in (*inputs, pieces, *scores[:2]))
    sizes = (*inputs.hidden_ND.shape, vocab, vocab + PADDING, _piece_rows(vocab))
    call(name, ctypes.byref(_Problem(*sizes, *addresses)), *others)


def _score(inputs: _Inputs) -> _Scores:
    tokens, vocab, new = len(inputs.hidden_ND), len(inputs.head_VD), inputs.hidden_ND.new_empty
    pieces = (new(min(_piece_rows(vocab), tokens - part.start), vocab + PADDING) for part in _chunks(tokens, vocab))
    scores = _Scores(new(tokens), new(tokens), tuple(pieces))
    _call("xck_log_probs_forward", inputs, scores)
    return scores


def _chunks(tokens: int, vocab: int) -> Iterator[slice]:
    """The tokens of each piece."""
    rows = _piece_rows(vocab)
    return (slice(start, start + rows) for start in range(0, tokens, rows))


class _LogProbs(Function):
    @staticmethod
    def forward(ctx: Any, hidden_TD: Tensor, head_VD: Tensor, targets_T: Tensor, keep: bool) -> Tensor:
        inputs = _Inputs(hidden_TD.contiguous(), head_VD.contiguous(), targets_T.contiguous())
        if keep:
            scores = _score(inputs)
            ctx.save_for_backward(*inputs, *scores[:2], *scores.pieces)
            return scores.log_probs_N
        ctx.save_for_backward(*inputs)
        parts = [_score(_part(inputs, chunk)).log_probs_N for chunk in _chunks(len(targets_T), len(head_VD))]
        return torch.cat(parts) if parts else hidden_TD.new_empty(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_T: Tensor) -> tuple[Tensor | None, ...]:
        # Asked for once only: recomputation gives each saved tensor out once.
        saved = ctx.saved_tensors
        inputs, kept = _Inputs(*saved[:3]), saved[3:]
        grad_hidden_TD, grad_head_VD = torch.empty_like(inputs.hidden_ND), torch.zeros_like(inputs.head_VD)
        grad_T = grad_T.contiguous()
        chunks = [slice(None)] if kept else _chunks(len(grad_T), len(inputs.head_VD))
        for chunk in chunks:
            part = _part(inputs, chunk)
            scores = _Scores(kept[0], kept[1], kept[2:]) if kept else _score(part)
            _call("xck_log_probs_backward", part, scores, grad_T[chunk], grad_hidden_TD[chunk], grad_head_VD)
        return grad_hidden_TD, grad_head_VD, None, None


def _part(inputs: _Inputs, chunk: slice) -> _Inputs:
    return _Inputs(inputs.hidden_ND[chunk], inputs.head_VD, inputs.targets_N[chunk])


def log_probs(
    hidden_TD: Tensor,
    head_VD: Tensor,
    targets_T: Tensor,
    chunk: int = 4096,
    entropy: bool = False,
    keep_bytes: int = 256 * 2**20,
) -> tuple[Tensor, Tensor | None]:
    """See ``reference.log_probs``; entropies are refused by ``supports``."""
    assert not entropy
    del chunk  # what exists at a time is a piece, however many tokens may
    keep = 4 * len(head_VD) * len(targets_T) <= keep_bytes and (hidden_TD.requires_grad or head_VD.requires_grad)
    keep = keep and torch.is_grad_enabled()
    return _LogProbs.apply(hidden_TD, head_VD, targets_T, keep), None  # type: ignore[no-untyped-call]


def supports(use: Use) -> str | None:
    """float32 without entropies."""
    if use.option("entropy", False):
        return "gives no entropies"
    return native_float32(use)


IMPLEMENTATION = Implementation(
    operator="log_probs", name="native", call=log_probs, supports=supports, preference=20, tolerance=5e-6
)
