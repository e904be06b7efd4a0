"""The precisions fp32 and bf16."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from xtuner_core.builtin.precision.check import missing_dtypes
from xtuner_core.builtin.precision.config import Bf16Config, Fp32Config
from xtuner_core.builtin.precision.plain import build
from xtuner_core.contracts.device import DeviceFacts
from xtuner_core.contracts.precision import PrecisionPolicy


def test_bf16_computes_in_bfloat16_and_keeps_master_weights_sums_and_states_in_float32():
    assert build(Bf16Config()).policy == PrecisionPolicy(
        parameter=torch.float32, compute=torch.bfloat16, reduction=torch.float32, state=torch.float32
    )


def test_fp32_is_float32_throughout_and_each_dtype_can_be_set():
    everything = dict.fromkeys(("parameter", "compute", "reduction", "state"), torch.float32)
    assert build(Fp32Config()).policy == PrecisionPolicy(**everything)
    assert build(Fp32Config(state="bfloat16")).policy == PrecisionPolicy(**everything | {"state": torch.bfloat16})


def test_modules_stay_as_they_are():
    model = torch.nn.Linear(2, 2)
    assert build(Bf16Config()).prepare(model) is model


def plan(plugin: str = "precision", **dtypes: str) -> SimpleNamespace:
    given = dict.fromkeys(("parameter", "compute", "reduction", "state"), "float32") | dtypes
    return SimpleNamespace(pick=lambda slot: SimpleNamespace(plugin=plugin), config={"precision": given})


FACTS = DeviceFacts(chip="X1", capabilities=frozenset({"dtype.fp32"}), memory_bytes=1, lacks={"dtype.bf16": "too old"})


def test_a_dtype_that_the_device_lacks_is_refused_with_its_key_and_the_reason():
    (problem,) = missing_dtypes(plan(compute="bfloat16"), FACTS)
    assert problem.key == "precision.compute"
    assert problem.message.endswith("lacks: too old")
    (problem,) = missing_dtypes(plan(state="float64"), FACTS)
    assert "X1 does not compute in float64" in problem.message


def test_nothing_is_refused_without_facts_or_of_another_plugins_precision():
    assert not list(missing_dtypes(plan(compute="bfloat16"), None))
    assert not list(missing_dtypes(plan("fp8", compute="bfloat16"), FACTS))
    assert not list(missing_dtypes(plan(), FACTS))
