"""The cache holds what it was given, however it came and whoever left."""

from __future__ import annotations

import pytest
import torch

from xtuner_core.engine.cache import DenseCache

LENGTHS = (5, 70, 9)


def inputs(lengths, heads=4, kv_heads=2, channels=3, values=5):
    generator = torch.Generator().manual_seed(0)
    shapes = ((heads, channels), (kv_heads, channels), (kv_heads, values))
    return [[torch.randn(n, *shape, generator=generator, dtype=torch.float64) for shape in shapes] for n in lengths]


def run(sequences, schedule, **options):
    """Feed all sequences at once, in pieces of the given sizes, and join their outputs."""
    cache, fed = DenseCache(len(sequences), "cpu"), [0] * len(sequences)
    outputs = [[] for _ in sequences]
    for sizes in schedule:
        cache.begin(sizes)
        parts = [[t[start : start + n] for t in s] for s, start, n in zip(sequences, fed, sizes, strict=True)]
        out = cache.attend(0, *(torch.cat(column) for column in zip(*parts, strict=True)), scale=0.5, **options)
        for b, piece in enumerate(out.split(list(sizes))):
            outputs[b].append(piece)
        fed = [start + n for start, n in zip(fed, sizes, strict=True)]
    return [torch.cat(pieces) for pieces in outputs]


@pytest.mark.parametrize("options", [{}, {"window": 4}, {"sinks_H": torch.arange(4).double()}])
def test_pieces_give_what_the_whole_gives(options):
    sequences = inputs(LENGTHS)
    whole = run(sequences, [LENGTHS], **options)
    pieces = run(sequences, [(2, 60, 1), (1, 8, 4), (1, 1, 3), (1, 1, 1)], **options)
    for expected, found in zip(whole, pieces, strict=True):
        assert torch.allclose(expected, found, rtol=0, atol=1e-14)


def test_the_sequences_that_stay_are_not_touched_by_those_that_leave():
    sequences = inputs((6, 6, 6))
    expected = run(sequences, [(5, 5, 5), (1, 1, 1)])
    cache = DenseCache(3, "cpu")
    cache.begin((5, 5, 5))
    cache.attend(0, *(torch.cat([s[n][:5] for s in sequences]) for n in range(3)), scale=0.5)
    cache.keep((2, 0))
    cache.begin((1, 1))
    out = cache.attend(0, *(torch.cat([sequences[b][n][5:] for b in (2, 0)]) for n in range(3)), scale=0.5)
    assert torch.allclose(out, torch.stack([expected[2][5], expected[0][5]]), rtol=0, atol=1e-14)


def test_the_dtype_of_keys_and_queries_is_kept():
    cache = DenseCache(1, "cpu")
    cache.begin((4,))
    q, k, v = (tensor.bfloat16() for tensor in inputs((4,))[0])
    for options in ({}, {"sinks_H": torch.zeros(4)}):
        assert cache.attend(0, q, k, v, scale=1.0, **options).dtype == torch.bfloat16
