"""What the strategy refuses, each with a way out."""

from __future__ import annotations

import pytest
from torch import nn

from xtuner_core.builtin.recompute.config import RecomputeConfig
from xtuner_core.contracts.device import DeviceFacts
from xtuner_core.errors import ComposeError, UnknownName
from xtuner_core.host import Host
from xtuner_core.nn import select
from xtuner_core.testing import tiny_host
from xtuner_core.testing.tiny_run import compose_tiny


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"role": "atn"}, "no module of the model has the role 'atn'"),
        ({"layers": "7-"}, "no module of role 'layer' is in the layers"),
    ],
)
def test_a_selector_that_matches_nothing(make_model, recomputed, values, told):
    with pytest.raises(UnknownName, match=told):
        recomputed(make_model("tiny"), values)


@pytest.mark.parametrize("role", ["moe.router", "moe.dispatch"])
def test_recomputed_routing(make_model, recomputed, role):
    with pytest.raises(ComposeError, match="would recompute the routing"):
        recomputed(make_model("tiny"), {"role": role})


def test_a_mixture_whose_router_cannot_be_found(make_model, recomputed):
    model = make_model("tiny")
    for item in select(model, "moe.router"):
        nn.Module.__setattr__(item.module, "role", "norm")
    with pytest.raises(ComposeError, match=r"no module of role 'moe\.router'"):
        recomputed(model, {})


@pytest.mark.parametrize("roles", [("layer", "attn"), ("attn", "layer"), ("mlp", "mlp")])
def test_two_picks_for_one_module(make_model, recomputed, roles):
    with pytest.raises(ComposeError, match=r"recomputes .* already"):
        recomputed(make_model("tiny"), *({"role": role} for role in roles))


def test_layers_that_are_no_layers():
    with pytest.raises(ValueError, match="no layer and no range"):
        RecomputeConfig(layers="first")


def test_offload_on_a_device_whose_memory_is_the_hosts(make_model, recomputed):
    with pytest.raises(ComposeError, match="cannot keep inputs in host memory"):
        recomputed(make_model("tiny"), {"offload": True})


def test_that_offload_before_anything_is_built():
    from xtuner_core.builtin.recompute.check import offloads_refused

    host: Host = tiny_host()
    plan = compose_tiny({"parallelism": {"recompute": {"offload": True}}}, host=host).require()
    facts = DeviceFacts(chip="c", capabilities=frozenset(), lacks={"memory.offload": "none"}, memory_bytes=1)
    (problem,) = offloads_refused(plan, facts)
    assert problem.key == "parallelism.recompute.offload"
    assert problem.fix
    assert list(offloads_refused(plan, None)) == []
