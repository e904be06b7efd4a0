"""Parameters and persistent buffers of a model by name, and the regions that a weight map selects in them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from xtuner_core.contracts.weights import WeightEntry
from xtuner_core.errors import ContractError


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Collect parameters and persistent buffers; tied ones under each of their names, as one object."""
    state = model.state_dict(keep_vars=True)
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def region(entry: WeightEntry, tensors: Mapping[str, Tensor]) -> Tensor:
    """Select the view of the model that holds `entry`, in the checkpoint's orientation, without gradient.

    :raises ContractError: the model has no such parameter, or the entry's index does not fit it.
    """
    if entry.parameter not in tensors:
        raise ContractError(
            f"the weight map sends {entry.hf_name} to {entry.parameter}, which the model does not have",
            fix="name a parameter or persistent buffer of the model",
        )
    tensor = tensors[entry.parameter].detach()
    try:
        return entry.region(tensor)
    except (IndexError, ValueError) as error:
        raise ContractError(
            f"the weight map's region for {entry.hf_name} does not fit {entry.parameter}: {error}",
            fix="correct the entry's index or transpose",
        ) from error
