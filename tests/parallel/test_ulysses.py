"""Ranks that share the tokens of a pack compute what one process computes, gradients included."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch import nn

from xtuner_core.builtin.ulysses.config import UlyssesConfig
from xtuner_core.builtin.ulysses.core import SharedCore
from xtuner_core.builtin.ulysses.strategy import Ulysses
from xtuner_core.errors import ConfigError
from xtuner_core.nn import AttentionCore
from xtuner_core.testing import ParallelismSmoke, latent
from xtuner_core.testing.ranks import run_ranks

EXACT = 1e-12
TARGET = f"{Path(__file__).with_name('ulysses_ranks.py')}:serve"


def inexact(ranks: int) -> dict[str, float]:
    """The cases in which some rank is further than that from one process."""
    answers = run_ranks(ranks, TARGET)
    assert len(answers[0]) == 8
    worst = {name: max(answer[name] for answer in answers) for name in answers[0]}
    return {name: far for name, far in worst.items() if not far < EXACT}


def test_two_ranks_equal_one():
    assert inexact(2) == {}


@pytest.mark.full
def test_four_ranks_equal_one():
    assert inexact(4) == {}


class Ranks:
    """Four ranks that never meet."""

    def size(self, *axes: str) -> int:
        return 4

    def group(self, *axes: str) -> None:
        return None

    def coordinate(self, *axes: str) -> int:
        return 1


def applied(core: nn.Module) -> nn.Module:
    model = nn.ModuleDict({"core": core})
    return Ulysses(UlyssesConfig(size=4)).apply(model, SimpleNamespace(ranks=Ranks()))["core"]


def test_heads_that_do_not_divide_are_refused_with_the_sizes_that_do():
    with pytest.raises(ConfigError, match="does not divide the 6 query heads") as caught:
        applied(AttentionCore(6, 2, 8, layer=0))
    assert caught.value.fix == "parallelism.ulysses.size may be 1, 2, 3, 6"


def test_an_attention_that_cannot_be_shared_is_refused():
    class OwnCore(AttentionCore):
        pass

    with pytest.raises(ConfigError, match="core is of class OwnCore, which calls the operator attention by itself"):
        applied(OwnCore(4, 4, 8, layer=0))


def test_the_operator_is_bound_for_a_ranks_own_heads():
    core = applied(AttentionCore(24, 6, 8, layer=0, value_dim=5, window=7))
    (use,) = core.uses(device="cpu", dtype=torch.float32).values()
    # 6 key heads are sent twice each, so that 4 ranks divide them.
    assert (use.size("heads"), use.size("kv_heads")) == (6, 3)
    assert (use.size("head_dim"), use.size("value_dim"), use.option("window")) == (8, 5, 7)
    assert isinstance(core, SharedCore)


class TestUlyssesAlone(ParallelismSmoke):
    plugin, model = "ulysses", "latent"
    configs = ({"size": 1},)
    objects: ClassVar[Mapping[str, object]] = {"latent": latent}
