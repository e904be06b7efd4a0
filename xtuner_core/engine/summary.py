"""What a run tells of itself before its first step and after its last: plain data."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from xtuner_core.contracts.device import DeviceFacts
from xtuner_core.contracts.precision import PrecisionPolicy
from xtuner_core.engine.build import Wired
from xtuner_core.engine.inputs import is_deterministic
from xtuner_core.engine.metrics import Meter
from xtuner_core.parts import Parts
from xtuner_core.plan import PlannedPick

FLOPS_CONVENTION = (
    "a multiply-add is 2; backward is twice forward; attention counts the causal half over true document "
    "lengths; recomputation and element-wise work count nothing"
)
"""Of `model_flops_per_second` and `mfu`, told wherever they are."""


def start_summary(parts: Parts, wired: Wired, facts: DeviceFacts, *, resumed: str | None = None) -> dict[str, Any]:
    """Gather model, parameters, device, precision, operators, and the plan that they come from.

    :param resumed: what a resume came to; None where none was asked for.
    """
    engine = wired.engine
    count = parts.config("model").parameter_count()
    return {
        **({} if resumed is None else {"resume": resumed}),
        "model": _picked(parts, "model"),
        **({} if parts.core.init is None else {"init": parts.core.init}),
        "parameters": count.total,
        "active_parameters": count.active,
        "trained_parameters": sum(item.tensor.numel() for item in engine.masters.optimized),
        "algorithm": _picked(parts, "algorithm"),
        "device": f"{_picked(parts, 'device')} ({facts.chip})",
        "precision": _picked(parts, "precision"),
        "deterministic": is_deterministic(parts, engine.device),
        "dtypes": dtypes(engine.policy),
        "tokenizer": {"folder": str(wired.tokenizer.folder), "size": wired.tokenizer.size},
        "operators": [row.as_data() for row in engine.operators],
        "conventions": {"flops": FLOPS_CONVENTION},
        "plan": {"digest": parts.plan.digest, "notes": list(parts.plan.notes)},
    }


def end_summary(
    *, meter: Meter, seconds: float, overhead: float, reason: str | None, export: Path | None
) -> dict[str, Any]:
    """Gather counts and times of a run that ended.

    :param overhead: seconds in observers, metrics and logging.
    :param reason: why it was stopped; None where it was not.
    """
    return {
        "reason": reason,
        "tokens": meter.tokens,
        "seconds": seconds,
        "step_seconds": meter.seconds,
        "tokens_per_second": meter.tokens / meter.seconds if meter.seconds else 0.0,
        "loss": meter.loss,
        "skipped_steps": meter.skipped,
        "overhead": {"seconds": overhead, "share": overhead / meter.seconds if meter.seconds else 0.0},
        "export": None if export is None else str(export),
    }


def dtypes(policy: PrecisionPolicy) -> Mapping[str, str]:
    """Write the policy as words: `{"compute": "bfloat16", …}`."""
    return {item.name: str(getattr(policy, item.name)).removeprefix("torch.") for item in fields(policy)}


def failure_summary(error: BaseException) -> dict[str, Any]:
    """Tell why a run failed, for `summary.json`."""
    return {
        "status": "failed",
        "error": f"{type(error).__name__}: {error}",
        "traceback": "".join(traceback.format_exception(error)),
    }


def _picked(parts: Parts, key: str) -> str:
    pick: PlannedPick | None = parts.plan.pick(key)
    assert pick is not None
    return pick.source or (f"{pick.name}:{pick.preset}" if pick.preset else pick.name)
