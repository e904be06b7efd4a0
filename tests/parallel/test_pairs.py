"""Each pair of settings trains as one process does, or is refused when it is wired with a reason; none is ignored.

The table in `docs/reference/combinations.md` is made of what is found here (`python tools/combinations.py`).
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from xtuner_core.testing.layouts import Case

_FILE = Path(__file__).with_name("pairs.py")
_SPEC = importlib.util.spec_from_file_location("pairs", _FILE)
pairs = importlib.util.module_from_spec(_SPEC)
sys.modules["pairs"] = pairs
_SPEC.loader.exec_module(pairs)

REFUSED: dict[tuple[str, str], str] = {}
"""Pairs that are refused, with words of the reason; reviewed."""


def found_in(chosen, on_ranks, alone, far):
    cases = [Case(name=f"pair{n}", overrides=pairs.merged(*pair)) for n, pair in enumerate(chosen)]
    found = on_ranks(2, cases, timeout=1200)
    wrong = {}
    for pair, case in zip(chosen, cases, strict=True):
        words = REFUSED.get(pair)
        if words is not None:
            told = found[case.name].get("refused", "not refused")
            if words not in told:
                wrong[pair] = told
            continue
        if "refused" in found[case.name]:
            wrong[pair] = found[case.name]["refused"]
            continue
        distance = far(found[case.name], alone(case))[0]
        if not distance[0] < pairs.bound(case.overrides):
            wrong[pair] = distance
    return wrong


@pytest.mark.full
def test_each_pair_trains_as_one_process_or_is_refused_with_its_reason(on_ranks, alone, far):
    assert found_in(list(pairs.pairs()), on_ranks, alone, far) == {}
