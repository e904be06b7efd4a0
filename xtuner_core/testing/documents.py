"""Random documents, and four ways to pack the same ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from xtuner_core.contracts.batch import Document, PackedBatch, pack


def random_documents(
    vocabulary: int, *, count: int = 16, longest: int = 20, seed: int = 0, weighted: bool = True
) -> list[Document]:
    """Documents of 1 to `longest` tokens.

    :param weighted: give each token a weight in [0, 1), some of them 0; False leaves them at 1.
    """
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (count,), generator=draw).tolist()
    made = [Document.of(torch.randint(vocabulary, (length,), generator=draw)) for length in lengths]
    return [_weighted(document, draw) for document in made] if weighted else made


def _weighted(document: Document, draw: torch.Generator) -> Document:
    weights = torch.rand(len(document), generator=draw)
    return replace(document, weights=document.weights * weights * (weights > 0.2))


def in_order(documents: Sequence[Document], parts: int) -> list[PackedBatch]:
    """As they come, without filler."""
    size = -(-len(documents) // parts)
    return [pack(documents[start : start + size]) for start in range(0, len(documents), size)]


def shuffled(documents: Sequence[Document], parts: int) -> list[PackedBatch]:
    """In another order, every pack filled up to the same number of tokens."""
    order = random.Random(parts).sample(list(documents), len(documents))
    packs = [order[part::parts] for part in range(parts)]
    capacity = max(sum(len(document) for document in members) for members in packs) + 3
    return [pack(members, capacity=capacity) for members in packs]


def longest_first(documents: Sequence[Document], parts: int) -> list[PackedBatch]:
    """Each to the pack that has least so far: unequal numbers of documents, boundaries not padded."""
    packs: list[list[Document]] = [[] for _ in range(parts)]
    for document in sorted(documents, key=len, reverse=True):
        min(packs, key=lambda members: sum(len(item) for item in members)).append(document)
    return [pack(members, bucket=1) for members in packs]


def lopsided(documents: Sequence[Document], parts: int) -> list[PackedBatch]:
    """One document in every pack but the last, which holds the others and much filler."""
    alone = [pack(documents[part : part + 1]) for part in range(parts - 1)]
    others = documents[parts - 1 :]
    return [*alone, pack(others, capacity=sum(len(document) for document in others) + 40)]


PACKINGS: tuple[Callable[[Sequence[Document], int], list[PackedBatch]], ...] = (
    in_order,
    shuffled,
    longest_first,
    lopsided,
)
"""Each packs documents into so many micro-batches; what a step computes depends on none of it."""


def packed_steps(way: str, steps: int, vocabulary: int) -> list[list[PackedBatch]]:
    """Global batches of so many steps, weighted documents in micro-batches.

    :param way: `mixed` gives five micro-batches of unequal lengths; `single` one, so that other ranks have nothing;
        `token` one of a single token; `odd` three of a prime number of tokens.
    """
    made: list[list[PackedBatch]] = []
    for step in range(steps):
        documents = random_documents(vocabulary, seed=step)
        if way == "mixed":
            made.append(longest_first(documents, 5))
        elif way == "single":
            made.append(in_order(documents, 1))
        elif way == "token":
            ids = torch.tensor([3 + step])
            made.append([pack([Document(token_ids=ids, labels=ids + 1, weights=torch.ones(1))])])
        else:
            assert way == "odd", way
            made.append([pack([document], capacity=23) for document in documents[:3]])
    return made
