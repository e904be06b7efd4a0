"""The built-in optimizers, schedules and precisions keep their contracts."""

from __future__ import annotations

from xtuner_core.testing import OptimizerContract, PrecisionContract, ScheduleContract


class TestAdamW(OptimizerContract):
    plugin = "adamw"
    configs = ({}, {"weight_decay": 0.0, "beta1": 0.0})


class TestMuon(OptimizerContract):
    plugin = "muon"
    configs = ({}, {"nesterov": False, "adjust": "original", "roles": ["attn"], "adamw_learning_rate": 1e-3})


class TestConstant(ScheduleContract):
    plugin, offer = "schedules", "constant"
    configs = ({}, {"warmup_steps": 5})


class TestCosine(ScheduleContract):
    plugin, offer = "schedules", "cosine"
    configs = ({}, {"warmup_steps": 5})


class TestLinear(ScheduleContract):
    plugin, offer = "schedules", "linear"
    configs = ({}, {"warmup_steps": 7, "final_fraction": 0.5})


class TestWsd(ScheduleContract):
    plugin, offer = "schedules", "wsd"
    configs = ({}, {"shape": "linear"}, {"shape": "cosine", "warmup_steps": 40, "decay_steps": 50})


class TestFp32(PrecisionContract):
    plugin, offer = "precision", "fp32"
    configs = ({}, {"parameter": "float64", "reduction": "float64"})
    tolerance = 1e-5


class TestBf16(PrecisionContract):
    plugin, offer = "precision", "bf16"
    configs = ({}, {"parameter": "bfloat16", "reduction": "bfloat16", "state": "bfloat16"})
