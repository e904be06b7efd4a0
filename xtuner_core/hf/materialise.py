"""From the meta device to memory: empty parameters and persistent buffers, tied ones still tied.

`nn.Module.to_empty` is not used, because it unties what shares a parameter.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xtuner_core.errors import ContractError


def materialise(model: nn.Module, device: torch.device | str, dtype: torch.dtype | None = None) -> nn.Module:
    """Give every parameter and persistent buffer memory on `device`, in place; what it holds is undefined.

    Tensors that are not on the meta device are moved and keep their values.

    :param dtype: of floating parameters; None keeps each one's own. Buffers always keep theirs.
    :raises ContractError: a buffer on the meta device is not persistent, so nothing would ever fill it.
    """
    _refuse_lost_buffers(model)
    made: dict[Tensor, Tensor] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if parameter not in made:
                made[parameter] = _parameter(parameter, device, dtype)
            setattr(module, name, made[parameter])
        for name, buffer in list(module.named_buffers(recurse=False, remove_duplicate=False)):
            if buffer not in made:
                made[buffer] = _empty(buffer, device, buffer.dtype)
            setattr(module, name, made[buffer])
    return model


def _refuse_lost_buffers(model: nn.Module) -> None:
    persistent = model.state_dict(keep_vars=True).keys()
    for name, buffer in model.named_buffers():
        if buffer.is_meta and name not in persistent:
            raise ContractError(
                f"the buffer {name} is not persistent and lies on the meta device, so nothing would fill it",
                fix="compute it in forward, or make it persistent and give it an entry in the weight map",
            )


def _parameter(old: nn.Parameter, device: torch.device | str, dtype: torch.dtype | None) -> nn.Parameter:
    kind = dtype if dtype is not None and old.is_floating_point() else old.dtype
    new = nn.Parameter(_empty(old.detach(), device, kind), requires_grad=old.requires_grad)
    new.__dict__.update(old.__dict__)
    return new


def _empty(old: Tensor, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    if old.is_meta:
        return torch.empty_like(old, device=device, dtype=dtype)
    return old.to(device=device, dtype=dtype)
