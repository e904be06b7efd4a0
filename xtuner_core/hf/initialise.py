"""Initial weights that depend on the seed and the Hugging Face name alone.

However a model stacks, transposes, shards or casts its parameters, wherever it keeps them, it starts equal.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from xtuner_core.contracts.weights import Init, Part, WeightMap
from xtuner_core.hf.boxes import parts_of, piece_of, wholes_of
from xtuner_core.hf.targets import region


def initialise(
    model: nn.Module,
    weight_map: WeightMap,
    seed: int,
    *,
    parts: Mapping[str, Part] | None = None,
    whole: Mapping[str, Tensor] | None = None,
) -> None:
    """Fill every tensor of the map, in place; tied parameters have one entry and are drawn once.

    A rank draws each tensor whole of which it holds something. Host memory peaks at one tensor in float32.

    :param model: materialised; parameters on any device, of any floating dtype.
    :param parts: what is filled, by the name in the model; None means the model's own parameters and buffers, whole.
    :param whole: tensors with the shapes of the undivided model, on the meta device; None takes those that `parts`
        tell, which suffices where a rank holds something of every parameter.
    :raises ContractError: the weight map does not fit the model.
    """
    parts = parts_of(model) if parts is None else parts
    whole = wholes_of(parts) if whole is None else whole
    with torch.no_grad():
        for entry in weight_map.entries:
            shape = tuple(region(entry, whole).shape)
            piece = piece_of(entry, parts[entry.parameter]) if entry.parameter in parts else None
            if piece is not None:
                assert not piece.tensor.is_meta, f"{entry.parameter} has no memory yet"
                piece.tensor.copy_(initial_tensor(entry.hf_name, shape, entry.init, seed)[piece.index])


def initial_tensor(hf_name: str, shape: tuple[int, ...], init: Init, seed: int) -> Tensor:
    """Draw one tensor of the checkpoint: float32 on the CPU, in the checkpoint's orientation.

    Normal values come from a Philox generator (Salmon et al., SC 2011) whose 128-bit key is a hash of seed
    and name. PyTorch's CPU generator takes in 32 bits of a seed only: of the 20 000 tensors of a large
    mixture, two would be equal with a chance of some per cent.
    """
    if init.kind == "constant":
        return torch.full(shape, init.value)
    digest = hashlib.sha256(f"{seed}:{hf_name}".encode()).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
    values = generator.standard_normal(math.prod(shape), dtype=np.float32)
    return torch.from_numpy(values).mul_(init.value).view(shape)
