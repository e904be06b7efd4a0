"""The order in which parallelism strategies are applied, and what two of them cannot share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from xtuner_core.errors import ComposeError
from xtuner_core.records import STAGES, ParallelismProvider, Problem
from xtuner_core.registry import Offer


def stage_problems(strategies: Mapping[str, Offer]) -> list[Problem]:
    """Two strategies on one dimension, two schedules, stages that wait for each other.

    :param strategies: parallelism offers by the key that chose them.
    """
    problems = _shared(strategies) + _unplaced(strategies)
    try:
        stage_order(strategies)
    except ComposeError as error:
        problems += error.problems
    return problems


def stage_order(strategies: Mapping[str, Offer]) -> list[str]:
    """Keys of the strategies in the order in which they are applied: by stage, then as written.

    :raises ComposeError: their stages wait for each other.
    """
    providers = {key: _provider(offer) for key, offer in strategies.items()}
    stages = _sorted_stages(strategies)
    return sorted(providers, key=lambda key: stages.index(providers[key].stage))


def before_precision(strategies: Mapping[str, Offer]) -> int:
    """How many of the strategies, in the order of `stage_order`, are applied before the precision is."""
    stages = _sorted_stages(strategies)
    turn = stages.index("precision")
    return sum(stages.index(_provider(offer).stage) < turn for offer in strategies.values())


def _sorted_stages(strategies: Mapping[str, Offer]) -> list[str]:
    providers = {key: _provider(offer) for key, offer in strategies.items()}
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for earlier, later in pairwise(STAGES):
        sorter.add(later, earlier)
    for provider in providers.values():
        sorter.add(provider.stage, *provider.after)
        for later in provider.before:
            sorter.add(later, provider.stage)
    try:
        return list(sorter.static_order())
    except CycleError as error:
        keys = tuple(strategies)
        message = f"the stages of {', '.join(keys)} wait for each other: {' -> '.join(error.args[1])}"
        raise ComposeError([Problem(message=message, fix="leave one of them out", code="stages")]) from error


def _provider(offer: Offer) -> ParallelismProvider[object]:
    assert isinstance(offer.provider, ParallelismProvider)
    return offer.provider


def _unplaced(strategies: Mapping[str, Offer]) -> list[Problem]:
    """Stages of a strategy's own that nothing places, and neighbours that no stage is called by."""
    known = {*STAGES, *(_provider(offer).stage for offer in strategies.values())}
    problems = []
    for key, offer in strategies.items():
        provider = _provider(offer)
        lost = sorted({*provider.before, *provider.after} - known)
        where = f"{key} ({offer})"
        fix = f"the stages are {', '.join(STAGES)}"
        if lost:
            message = f"{where} wants its place beside the stage {lost[0]!r}, which is not in this run"
            problems.append(Problem(message=message, fix=fix, code="stages", key=key, plugins=(offer.plugin,)))
        elif provider.stage not in STAGES and not (provider.before or provider.after):
            message = f"{where} has the stage {provider.stage!r} of its own, and says neither before nor after what"
            problems.append(Problem(message=message, fix=fix, code="stages", key=key, plugins=(offer.plugin,)))
    return problems


def _shared(strategies: Mapping[str, Offer]) -> list[Problem]:
    owners: dict[str, list[str]] = defaultdict(list)
    for key, offer in strategies.items():
        for dimension in _provider(offer).dimensions:
            owners[f"own the dimension {dimension.name}"].append(key)
        if _provider(offer).schedule:
            owners["drive the schedule of micro-batches"].append(key)
    return [
        Problem(
            message=f"{' and '.join(f'{key} ({strategies[key]})' for key in keys)} both {what}",
            fix=f"take out {keys[-1]}",
            code="dimension",
            key=keys[-1],
            plugins=tuple(strategies[key].plugin for key in keys),
        )
        for what, keys in owners.items()
        if len(keys) > 1
    ]
