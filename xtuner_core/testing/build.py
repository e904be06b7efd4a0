"""Models built as the engine builds them, for tests that look at a model alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from typing import Any, cast

import torch
from torch import nn

from xtuner_core.contracts.model import Model
from xtuner_core.contracts.weights import Init
from xtuner_core.engine.operators import OperatorBinder
from xtuner_core.engine.process import default_dtype
from xtuner_core.hf.initialise import initial_tensor, initialise
from xtuner_core.hf.materialise import materialise
from xtuner_core.hf.targets import named_tensors, region
from xtuner_core.host import Host
from xtuner_core.loading import load
from xtuner_core.parts import Parts
from xtuner_core.registry import Offer
from xtuner_core.testing.tiny_run import compose_tiny


def find_offer(host: Host, slot: str, name: str) -> Offer:
    """The offer of this name among those of the host's active plugins."""
    offer = host.registry.find(slot, name)
    assert offer is not None, f"no active plugin offers the {slot} {name!r}"
    return offer


def model_config(host: Host, offer: str, values: Mapping[str, Any]) -> Any:
    """Make a model's configuration as a run would: defaults, then values, validated, nested picks included.

    :param host: one of `tiny_host`.
    :param offer: name of the model, or `name:preset`.
    :raises XTunerCoreError: the values cannot be used.
    """
    composition = compose_tiny({"model": {"name": offer, **values}}, host=host)
    return Parts(composition.require(), host).config("model")


def meta_model(host: Host, offer: str, config: Any, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Build a model on the meta device.

    :param offer: name of the model.
    :param config: its configuration dataclass, or the values of one.
    """
    if not is_dataclass(config):
        config = model_config(host, offer, config)
    found = find_offer(host, "model", offer)
    factory = load(found.provider.factory, plugin=found.plugin, distribution=found.distribution)
    with torch.device("meta"), default_dtype(dtype):
        model = factory(config)
    assert isinstance(model, nn.Module)
    return model


def build_model(
    host: Host,
    offer: str,
    config: Any,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    *,
    seed: int = 0,
    spread: float | None = None,
    plain: bool = False,
) -> nn.Module:
    """Build a model, give it memory and weights, and bind its operators.

    :param host: one of `tiny_host`, with the model's plugin active.
    :param offer: name of the model.
    :param config: its configuration dataclass, or the values of one.
    :param spread: standard deviation around the initial constants, or of the matrices; None keeps those of the
        weight map. Untrained weights make every layer nearly the identity and hide mistakes, 0.2 does not.
    :param plain: bind every operator to its plain PyTorch reference, whose operations can be counted.
    """
    model = meta_model(host, offer, config, dtype)
    materialise(model, device)
    fill(model, seed, spread)
    bind(host, model.modules(), dtype, device, plain=plain)
    return model


def fill(model: nn.Module, seed: int, spread: float | None) -> None:
    """Give a materialised model the weights of `build_model`."""
    weight_map = cast(Model, model).weight_map()
    if spread is None:
        initialise(model, weight_map, seed)
        return
    tensors = named_tensors(model)
    with torch.no_grad():
        for entry in weight_map.entries:
            target = region(entry, tensors)
            noise = initial_tensor(entry.hf_name, tuple(target.shape), Init("normal", spread), seed)
            centre = entry.init.value if entry.init.kind == "constant" else 0.0
            target.copy_(noise.double() + centre)


def bind(
    host: Host,
    users: Iterable[object],
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    *,
    plain: bool = False,
) -> None:
    """Bind the operators of modules to what the host's active plugins offer."""
    offers = host.registry.of_slot("operator")
    held = [(o.plugin, load(o.provider.factory, plugin=o.plugin, distribution=o.distribution)) for o in offers]
    implementations = [(plugin, item) for plugin, item in held if not plain or item.name == "reference"]
    binder = OperatorBinder(implementations, device=torch.device(device).type, deterministic=True)
    binder.bind(users, dtype=dtype)
