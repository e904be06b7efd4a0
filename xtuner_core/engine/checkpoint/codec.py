"""Nested plain data and tensors as JSON beside a file of tensors: what a state may hold, and nothing that runs.

Tensors stand in the JSON as `{"$tensor": NAME}`, numbers that are not finite as `{"$float": "inf"}`, tuples as
`{"$tuple": […]}`, and mappings whose keys are no plain strings as `{"$map": [[KEY, VALUE], …]}`; all else is itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from xtuner_core.errors import ContractError

_PLAIN = (str, int, float, bool, type(None))


def encode(state: Any, label: str) -> tuple[Any, dict[str, Tensor]]:
    """Divide a state into JSON and tensors, which are neither copied nor moved.

    :param label: what the state is called; begins the names of its tensors.
    :raises ContractError: it holds something that is neither plain data nor a tensor; names where.
    """
    tensors: dict[str, Tensor] = {}
    return _encode(state, label, tensors), tensors


def decode(plain: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Put together what `encode` divided.

    :raises ValueError: a tensor is missing, or the JSON is of another form.
    """
    if isinstance(plain, list):
        return [decode(item, tensors) for item in plain]
    if not isinstance(plain, dict):
        return plain
    for mark, read in _MARKS.items():
        if mark in plain:
            return read(plain[mark], tensors)
    return {key: decode(value, tensors) for key, value in plain.items()}


def _encode(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        return {"$tensor": _take(value, path, tensors)}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(float(value))}
    # Subclasses (a NumPy number, an enumeration) would come back as something else.
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Mapping):
        return _encode_mapping(value, path, tensors)
    if type(value) in (list, tuple):
        items = [_encode(item, f"{path}.{index}", tensors) for index, item in enumerate(value)]
        return items if type(value) is list else {"$tuple": items}
    kind = type(value).__qualname__
    raise ContractError(
        f"{path} is a {kind}, and a state holds mappings, lists, numbers, strings, None and tensors only",
        fix="return it from state_dict() as one of these",
    )


def _encode_mapping(value: Mapping[Any, Any], path: str, tensors: dict[str, Tensor]) -> Any:
    if all(type(key) is str and not key.startswith("$") for key in value):
        return {key: _encode(item, f"{path}.{key}", tensors) for key, item in value.items()}
    pairs = [[_encode(key, path, {}), _encode(item, f"{path}.{key}", tensors)] for key, item in value.items()]
    return {"$map": pairs}


def _take(tensor: Tensor, path: str, tensors: dict[str, Tensor]) -> str:
    name = path
    # Keys that hold dots may give two tensors one path.
    while name in tensors:
        name += "'"
    tensors[name] = tensor.detach()
    return name


def _tensor(name: Any, tensors: Mapping[str, Tensor]) -> Tensor:
    if name not in tensors:
        raise ValueError(f"the tensor {name} is missing")
    return tensors[name]


def _tuple(items: Any, tensors: Mapping[str, Tensor]) -> tuple[Any, ...]:
    return tuple(decode(item, tensors) for item in items)


def _map(pairs: Any, tensors: Mapping[str, Tensor]) -> dict[Any, Any]:
    return {decode(key, tensors): decode(value, tensors) for key, value in pairs}


_MARKS: Mapping[str, Callable[[Any, Mapping[str, Tensor]], Any]] = {
    "$tensor": _tensor,
    "$float": lambda text, tensors: float(text),
    "$tuple": _tuple,
    "$map": _map,
}
