"""Fifty steps of each optimizer equal references in NumPy, float64, written from the papers' formulas.

The references go another way where there is one: Newton-Schulz acts on singular values, so the reference decomposes
each matrix and puts the polynomial through its singular values alone. Rules, a schedule, clipping, stacked experts and
fused matrices take part.
"""

from __future__ import annotations

from math import cos, pi, sqrt

import numpy as np
import pytest
import torch

from xtuner_core.builtin.adamw.config import AdamWConfig
from xtuner_core.builtin.adamw.optimizer import AdamW
from xtuner_core.builtin.muon.config import MuonConfig
from xtuner_core.builtin.muon.optimizer import Muon
from xtuner_core.builtin.schedules import closed_forms
from xtuner_core.builtin.schedules.config import CosineConfig, WsdConfig
from xtuner_core.engine.gradients import gradient_norm

STEPS, CLIP, DECAY = 50, 6.0, 0.1
EXACT = {"rtol": 0, "atol": 1e-12}
BLOCKS = {"qkv": [np.s_[0:6], np.s_[6:9], np.s_[9:12]], "gate_up": [np.s_[0:10:2], np.s_[1:10:2]]}
"""Rows of the matrices that are fused."""


def wsd(step):
    return step / 5 if step <= 5 else 1.0 if step <= 40 else 1 - sqrt((step - 40) / 10)


def cosine(step):
    return step / 10 if step < 10 else 0.1 + 0.45 * (1 + cos(pi * (step - 10) / 40))


def decay_of(name, role, array, rule):
    return rule.get("weight_decay", 0.0 if array.ndim < 2 or role == "norm" else DECAY)


class Reference:
    """Both optimizers over arrays by name; `orthogonal` says which are Muon's."""

    def __init__(self, zoo, tensors, orthogonal, adjust=None, nesterov=True, adamw_rate=1.0):
        self.kinds = zoo.KINDS
        self.arrays = dict(zip(self.kinds, (t.numpy().copy() for t in tensors), strict=True))
        self.first = {name: np.zeros_like(array) for name, array in self.arrays.items()}
        self.second = {name: np.zeros_like(array) for name, array in self.arrays.items()}
        self.orthogonal, self.adjust, self.nesterov, self.adamw_rate = orthogonal, adjust, nesterov, adamw_rate

    def step(self, t, grads, rate):
        norm = sqrt(sum((grad**2).sum() for grad in grads.values()))
        for name, (role, _, rule) in self.kinds.items():
            grad, array = grads[name] * min(1.0, CLIP / norm), self.arrays[name]
            own = rate * rule.get("learning_rate_factor", 1.0)
            matrix = role in self.orthogonal and array.ndim > 1
            own *= 1.0 if matrix else self.adamw_rate
            move = self.muon(name, grad) if matrix else self.adamw(name, grad, t)
            self.arrays[name] = array - own * (move + decay_of(name, role, array, rule) * array)

    def adamw(self, name, grad, t):
        self.first[name] = 0.9 * self.first[name] + 0.1 * grad
        self.second[name] = 0.95 * self.second[name] + 0.05 * grad**2
        return self.first[name] / (1 - 0.9**t) / (np.sqrt(self.second[name] / (1 - 0.95**t)) + 1e-8)

    def muon(self, name, grad):
        self.first[name] = 0.95 * self.first[name] + grad
        update = grad + 0.95 * self.first[name] if self.nesterov else self.first[name]
        found = np.zeros_like(update)
        for rows in BLOCKS.get(name, [np.s_[:]]):
            for place in np.ndindex(update.shape[:-2]):
                found[(*place, rows)] = self.orthogonal_matrix(update[(*place, rows)])
        return found

    def orthogonal_matrix(self, matrix):
        u, s, vt = np.linalg.svd(matrix, full_matrices=False)
        s = s / np.linalg.norm(matrix)
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        return self.adjust(*matrix.shape) * (u * s) @ vt


def compare(zoo, make, schedule, reference_schedule, reference, rate=0.02):
    ours = zoo.values()
    optimizer = zoo.bound(make(zoo.described(ours)))
    clipped = 0
    for step in range(1, STEPS + 1):
        grads = [grad * (1 + step % 3) / 4 for grad in zoo.values(seed=100 + step)]
        reference.step(
            step, dict(zip(zoo.KINDS, (g.numpy() for g in grads), strict=True)), rate * reference_schedule(step)
        )
        norm = gradient_norm(grads).item()
        clipped += norm > CLIP
        optimizer.step(
            grads,
            learning_rate=optimizer.learning_rate * schedule(step, STEPS),
            grad_scale=min(1.0, CLIP / norm),
        )
    assert 0 < clipped < STEPS
    for name, tensor in zip(zoo.KINDS, ours, strict=True):
        torch.testing.assert_close(tensor, torch.from_numpy(reference.arrays[name]), **EXACT, msg=name)


def test_adamw_with_rules_clipping_and_a_cosine(zoo):
    config = AdamWConfig(learning_rate=0.02, weight_decay=DECAY)
    compare(
        zoo,
        lambda parameters: AdamW(config, parameters, state_dtype=torch.float64),
        closed_forms.cosine(CosineConfig(warmup_steps=10, final_fraction=0.1)),
        cosine,
        Reference(zoo, zoo.values(), orthogonal=()),
    )


ADJUST = {
    "match_rms": lambda rows, columns: 0.2 * sqrt(max(rows, columns)),
    "original": lambda rows, columns: sqrt(max(1, rows / columns)),
    "spectral": lambda rows, columns: sqrt(rows / columns),
}
MATRICES = ("attn.qkv", "attn.out", "moe.experts", "mlp.up")


@pytest.mark.parametrize("adjust", ADJUST)
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_with_rules_clipping_stacks_fused_matrices_and_wsd(zoo, adjust, nesterov):
    config = MuonConfig(learning_rate=0.02, weight_decay=DECAY, adjust=adjust, nesterov=nesterov)
    compare(
        zoo,
        lambda parameters: Muon(config, parameters, state_dtype=torch.float64),
        closed_forms.wsd(WsdConfig(warmup_steps=5, decay_steps=10)),
        wsd,
        Reference(zoo, zoo.values(), MATRICES, ADJUST[adjust], nesterov),
    )


def test_muon_of_chosen_roles_with_a_learning_rate_of_its_own_for_the_rest(zoo):
    config = MuonConfig(
        learning_rate=0.02, weight_decay=DECAY, roles=["moe"], adamw_roles=[], adamw_learning_rate=0.005
    )
    compare(
        zoo,
        lambda parameters: Muon(config, parameters, state_dtype=torch.float64),
        closed_forms.wsd(WsdConfig(warmup_steps=5, decay_steps=10)),
        wsd,
        Reference(zoo, zoo.values(), ("moe.experts", "moe.router"), ADJUST["match_rms"], adamw_rate=0.25),
    )
