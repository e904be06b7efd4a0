"""The tensors that ranks hold parts of, as all of them see them: one table of names, dtypes and whole shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from xtuner_core.errors import ContractError
from xtuner_core.hf.agreement import Agreement

Row = tuple[str, list[int]]
"""Dtype and whole shape."""


def agreed_wholes(mine: Mapping[str, Tensor], agreement: Agreement) -> dict[str, Tensor]:
    """Every tensor of which any rank holds a part, in one order on all ranks.

    :param mine: those of this rank, with the shapes of the wholes, on the meta device. Where all ranks have the same,
        they exchange no more than a digest.
    :returns: the same of all ranks, on the meta device.
    :raises ContractError: two ranks tell different dtypes or shapes of one name.
    """
    table = {name: (str(tensor.dtype).removeprefix("torch."), list(tensor.shape)) for name, tensor in mine.items()}
    if agreement.alike(table):
        return dict(mine)
    tables = agreement.meet(table)
    merged = agreement.lead(lambda: _merged(tables))
    return {name: torch.empty(shape, dtype=getattr(torch, word), device="meta") for name, (word, shape) in merged}


def _merged(tables: Sequence[Mapping[str, Row]]) -> list[tuple[str, Row]]:
    found: dict[str, Row] = {}
    for rank, table in enumerate(tables):
        for name, row in table.items():
            first = found.setdefault(name, row)
            if list(first) != list(row):
                raise ContractError(
                    f"rank {rank} holds {name} as a part of {row[0]} {list(row[1])}, "
                    f"an earlier one as a part of {first[0]} {list(first[1])}",
                    fix="tell the layout of every cut, and give states the shape of what the rank holds",
                )
    return list(found.items())
