"""Optimizer states by parameter name: compared with what is saved, then copied in."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from xtuner_core.errors import DataError

States = Mapping[str, Mapping[str, Tensor]]
"""Parameter name to tensors by their own names."""


def copy_states(own: States, saved: States, *, plugin: str) -> None:
    """Copy saved tensors over an optimizer's own.

    :param plugin: whose optimizer it is, for the message.
    :raises DataError: names or shapes differ; then nothing has been copied.
    """
    differing = sorted(own.keys() ^ saved.keys()) or sorted(
        name for name in own if _shapes(own[name]) != _shapes(saved[name])
    )
    if differing:
        raise DataError(
            f"the saved optimizer state is of another model or optimizer: it differs at {differing[0]}"
            + (f" and {len(differing) - 1} more" if len(differing) > 1 else ""),
            fix="resume with the model, the optimizer and the rules that were saved",
            plugin=plugin,
        )
    for name, tensors in own.items():
        for key, tensor in tensors.items():
            tensor.copy_(saved[name][key])


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}
