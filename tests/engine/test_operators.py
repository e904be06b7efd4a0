"""Binding: the best implementation that supports a use, and reasons for everything else."""

from __future__ import annotations

import json

import pytest
import torch

from xtuner_core.contracts.operator import Implementation, Use
from xtuner_core.engine.operators import OperatorBinder
from xtuner_core.errors import ComposeError, ContractError


def implementation(name, *, preference=0, refuses=None, operator="mix", deterministic=True):
    def supports(use):
        return refuses if refuses and use.size("dim") > 4 else None

    return Implementation(
        operator=operator,
        name=name,
        call=lambda: name,
        supports=supports,
        preference=preference,
        deterministic=deterministic,
        tolerance=1e-6,
    )


PLAIN = ("core", implementation("plain"))
FAST = ("speed", implementation("fast", preference=10, refuses="takes dims up to 4"))
LOOSE = ("speed", implementation("loose", preference=20, deterministic=False))


class User:
    def __init__(self, dim, operator="mix"):
        self.dim, self.operator, self.called = dim, operator, None

    def uses(self, *, device, dtype):
        return {"mixing": Use.of(self.operator, device, dtype, {"dim": self.dim})}

    def bind(self, table, *, device, dtype):
        (use,) = self.uses(device=device, dtype=dtype).values()
        self.called = table[use]()


def test_the_highest_preference_that_supports_a_use_is_bound():
    small, large = User(4), User(8)
    OperatorBinder([PLAIN, FAST], device="cpu").bind([small, large], dtype=torch.float32)
    assert (small.called, large.called) == ("fast", "plain")


def test_what_is_no_operator_user_is_passed_over():
    user = User(4)
    OperatorBinder([PLAIN], device="cpu").bind([torch.nn.Linear(2, 2), object(), user], dtype=torch.float32)
    assert user.called == "plain"


def test_rows_say_who_serves_whom_and_why_nobody_else_does():
    binder = OperatorBinder([PLAIN, FAST, LOOSE], device="cpu", deterministic=True)
    binder.bind([User(4), User(8), User(8)], dtype=torch.bfloat16)
    small, large = [row.as_data() for row in binder.rows]
    assert small["implementation"] == "fast"
    assert small["plugin"] == "speed"
    assert small["others"]["plain"] == "lower preference"
    assert large == {
        "operator": "mix",
        "implementation": "plain",
        "plugin": "core",
        "users": 2,
        "device": "cpu",
        "dtype": "bfloat16",
        "sizes": {"dim": 8},
        "options": {},
        "others": {
            "fast": "takes dims up to 4",
            "loose": "is not deterministic, and this run is (deterministic: true)",
        },
    }
    assert json.loads(json.dumps(large)) == large


def test_what_is_not_deterministic_serves_only_runs_that_need_not_be():
    strict, free = User(4), User(4)
    OperatorBinder([PLAIN, LOOSE], device="cpu", deterministic=True).bind([strict], dtype=torch.float32)
    OperatorBinder([PLAIN, LOOSE], device="cpu").bind([free], dtype=torch.float32)
    assert (strict.called, free.called) == ("plain", "loose")


def test_a_pin_is_taken_against_preference():
    user = User(4)
    binder = OperatorBinder([PLAIN, FAST], device="cpu", pins={"mix": "plain"})
    binder.bind([user], dtype=torch.float32)
    assert user.called == "plain"
    assert binder.rows[0].others == {"fast": "operator.mix=plain is pinned"}


def test_a_pin_that_does_not_support_every_use_is_refused_with_its_reason():
    binder = OperatorBinder([PLAIN, FAST], device="cpu", pins={"mix": "fast"})
    small, large = User(4), User(8)
    with pytest.raises(ComposeError, match="takes dims up to 4") as caught:
        binder.bind([small, large], dtype=torch.float32)
    (problem,) = caught.value.problems
    assert problem.key == "operator.mix"
    assert "take operator.mix=fast away" in problem.fix
    assert (small.called, large.called) == (None, None)


def test_a_pin_that_is_not_deterministic_is_refused_in_a_deterministic_run():
    binder = OperatorBinder([PLAIN, LOOSE], device="cpu", pins={"mix": "loose"}, deterministic=True)
    with pytest.raises(ComposeError, match="not deterministic"):
        binder.bind([User(4)], dtype=torch.float32)


def test_pins_of_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(ComposeError) as caught:
        OperatorBinder([PLAIN, FAST], device="cpu", pins={"mix": "plane", "mixx": "plain"})
    assert [problem.fix for problem in caught.value.problems] == ["write 'plain'", "write 'mix'"]


def test_a_pin_that_nothing_uses_is_refused():
    other = ("core", implementation("plain", operator="stir"))
    binder = OperatorBinder([PLAIN, other], device="cpu", pins={"stir": "plain"})
    binder.bind([User(4)], dtype=torch.float32)
    with pytest.raises(ComposeError, match="nothing in this run uses"):
        binder.refuse_idle_pins()
    binder.bind([User(4, operator="stir")], dtype=torch.float32)
    binder.refuse_idle_pins()


def test_every_use_without_implementation_is_named_with_every_reason():
    binder = OperatorBinder([FAST], device="cpu")
    with pytest.raises(ComposeError) as caught:
        binder.bind([User(8), User(16), User(2, operator="stir")], dtype=torch.float32)
    messages = [problem.message for problem in caught.value.problems]
    assert len(messages) == 3
    assert "'mix' on cpu in float32 with dim=8: fast of plugin 'speed' takes dims up to 4" in messages[0]
    assert "no active plugin offers any" in messages[2]


def test_an_implementation_that_fails_in_supports_is_blamed_on_its_plugin():
    def broken(use):
        raise KeyError("heads")

    bad = Implementation(operator="mix", name="bad", call=print, supports=broken, tolerance=0.0)
    binder = OperatorBinder([PLAIN, ("third", bad)], device="cpu")
    with pytest.raises(ContractError, match="'bad' of operator 'mix'") as caught:
        binder.bind([User(4)], dtype=torch.float32)
    assert caught.value.plugin == "third"
