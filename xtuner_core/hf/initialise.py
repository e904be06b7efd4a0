"""Initial weights that depend on the seed and the Hugging Face name alone.

However a model stacks, transposes, shards or casts its parameters, wherever it keeps them, it starts equal.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from torch import Tensor, nn

from xtuner_core.contracts.weights import Init, WeightMap
from xtuner_core.hf.targets import named_tensors, region


def initialise(model: nn.Module, weight_map: WeightMap, seed: int) -> None:
    """Fill every tensor of the map, in place; tied parameters have one entry and are drawn once.

    Host memory peaks at one tensor in float32.

    :param model: materialised; parameters on any device, of any floating dtype.
    :raises ContractError: the weight map does not fit the model.
    """
    tensors = named_tensors(model)
    with torch.no_grad():
        for entry in weight_map.entries:
            target = region(entry, tensors)
            assert not target.is_meta, f"{entry.parameter} has no memory yet"
            target.copy_(initial_tensor(entry.hf_name, tuple(target.shape), entry.init, seed))


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
