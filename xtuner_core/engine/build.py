"""From parts to an engine, in one order: meta model, strategies, operators, weights, optimizer, algorithm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from torch import nn

from xtuner_core.contracts.algorithm import Algorithm, Report, Services, Stopping
from xtuner_core.contracts.device import Device
from xtuner_core.contracts.loss import Loss
from xtuner_core.contracts.model import Model
from xtuner_core.contracts.optimizer import Optimizer
from xtuner_core.contracts.parallelism import Parallelism, RankContext, Ranks
from xtuner_core.contracts.precision import Precision, PrecisionPolicy
from xtuner_core.contracts.tokenizer import Tokenizer
from xtuner_core.engine.engine import Engine
from xtuner_core.engine.inputs import cache_folder, check_vocabulary, choose_tokenizer, is_deterministic, open_corpora
from xtuner_core.engine.masters import MasterWeights, Placed, lift, master_weights
from xtuner_core.engine.operators import OperatorBinder, OperatorRow
from xtuner_core.engine.process import default_dtype
from xtuner_core.engine.ranks.crew import Crew, lone_crew
from xtuner_core.engine.ranks.groups import alone
from xtuner_core.engine.ranks.heartbeat import NoHeartbeat, Pulse
from xtuner_core.engine.ranks.layout import RankLayout
from xtuner_core.engine.ranks.meeting import drives_schedule, strategies_of
from xtuner_core.engine.rules import Treatment, freeze, resolve
from xtuner_core.engine.schedule import PlainSchedule, Schedule
from xtuner_core.hf.coverage import check_coverage
from xtuner_core.hf.initialise import initialise
from xtuner_core.hf.materialise import materialise
from xtuner_core.hf.read import read_weights
from xtuner_core.parts import Parts
from xtuner_core.stages import before_precision, stage_order


@dataclass(frozen=True, slots=True, kw_only=True)
class Wired:
    """A run that is ready for its first step."""

    engine: Engine
    algorithm: Algorithm
    tokenizer: Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """A model on the meta device, with every use of its operators bound."""

    model: nn.Module
    policy: PrecisionPolicy
    followers: frozenset[str]
    """Parameters that follow the policy (`engine.masters.lift`)."""
    strategies: tuple[Parallelism, ...]
    """In the order in which they were applied."""
    passes: Schedule
    """Runs forward and backward of a step."""
    layout: RankLayout
    """What this rank holds of each parameter."""
    treatments: Mapping[str, Treatment]
    """What the run's rules come to; what they freeze is frozen."""
    loss: Loss
    binder: OperatorBinder


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What a rank is asked, and what it tells, while it works."""

    stopping: Stopping
    """Why it is asked to stop, or None while it is not."""
    pulse: Pulse = field(default_factory=NoHeartbeat)
    """Is told where the rank is."""


def wire(
    parts: Parts,
    device: Device,
    folder: Path,
    report: Report,
    watch: Watch,
    weights: Path | None = None,
    crew: Crew | None = None,
) -> Wired:
    """Build everything that a run needs, on the rank that leads.

    :param folder: the run's.
    :param report: writes a warning to the run's log.
    :param weights: Hugging Face folder that comes before what the plan starts from: a checkpoint's.
    :param crew: the ranks; None means that this one is alone.
    :raises XTunerCoreError: a text, a checkpoint or a combination that cannot be used.
    """
    corpora = open_corpora(parts)
    tokenizer = choose_tokenizer(parts, corpora)
    engine = build_engine(parts, device, watch, weights, crew, tokenizer)
    services = Services(
        engine=engine,
        tokenizer=tokenizer,
        corpora=corpora,
        seed=parts.core.seed,
        folder=folder,
        data=parts.core.data,
        cache=cache_folder(parts),
        report=report,
        stopping=watch.stopping,
    )
    algorithm: Algorithm = parts.make("algorithm", services)
    # Whether the schedule fits into the run is known only now; asking it is what makes it refuse.
    if algorithm.steps:
        engine.schedule(1, algorithm.steps)
    return Wired(engine=engine, algorithm=algorithm, tokenizer=tokenizer)


def build_engine(
    parts: Parts,
    device: Device,
    watch: Watch,
    weights: Path | None = None,
    crew: Crew | None = None,
    tokenizer: Tokenizer | None = None,
) -> Engine:
    """Build the engine of one rank, with weights; every rank builds its own.

    :param tokenizer: where the rank has one, the model's vocabulary is compared with it.
    """
    crew = lone_crew(device.torch_device.type) if crew is None else crew
    drawn = draw(parts, device, crew.ranks)
    if tokenizer is not None:
        check_vocabulary(drawn.layout.whole, drawn.model, tokenizer)
    fill(parts, drawn, device, weights)
    masters = _masters(drawn, crew.ranks)
    return Engine(
        model=drawn.model,
        device=device,
        policy=drawn.policy,
        loss=drawn.loss,
        optimizer=_optimizer(parts, drawn, masters),
        schedule=parts.make("schedule"),
        masters=masters,
        settings=parts.core.engine,
        operators=drawn.binder.rows,
        datasets=tuple(pick.key.rpartition(".")[2] for pick in parts.plan.picked("dataset")),
        crew=crew,
        layout=drawn.layout,
        strategies=drawn.strategies,
        passes=drawn.passes,
        asked_to_stop=lambda: watch.stopping() is not None,
        pulse=watch.pulse,
    )


def operator_rows(parts: Parts, device: Device) -> tuple[OperatorRow, ...]:
    """Bind a run's operators on the meta device, for display: no weight is read or allocated."""
    ranks = alone(device.torch_device.type)
    drawn = draw(parts, device, ranks)
    _optimizer(parts, drawn, _masters(drawn, ranks))
    return drawn.binder.rows


def draw(parts: Parts, device: Device, ranks: Ranks) -> Blueprint:
    """Build the model on the meta device, apply precision and strategies by stage, and bind its operators.

    :raises ComposeError: a use has no implementation, or a rule of `parameters` cannot be kept.
    """
    precision: Precision = parts.make("precision")
    policy = precision.policy
    layout = RankLayout(ranks.views, ranks.rank)
    followers: frozenset[str] = frozenset()
    strategies: list[Parallelism] = []
    passes: Schedule = PlainSchedule()
    treatments: Mapping[str, Treatment] = {}
    with torch.device("meta"), default_dtype(policy.compute):
        model: nn.Module = parts.make("model")
        for key in _in_stages(parts):
            if key is None:
                model = precision.prepare(model)
                followers = lift(model, policy)
                layout.begin(model)
                treatments = resolve(parts.core.parameters, model)
                freeze(model, treatments)
            else:
                strategy: Parallelism = parts.make(key)
                strategies.append(strategy)
                if drives_schedule(parts, key):
                    passes = cast("Schedule", strategy)
                context = RankContext(ranks=ranks, layout=layout, device=device, policy=policy, followers=followers)
                model = strategy.apply(model, context)
    loss: Loss = parts.make("loss")
    binder = _binder(parts, device)
    binder.bind([*model.modules(), loss], dtype=policy.compute)
    return Blueprint(
        model=model,
        policy=policy,
        followers=followers,
        strategies=tuple(strategies),
        passes=passes,
        layout=layout,
        treatments=treatments,
        loss=loss,
        binder=binder,
    )


def _binder(parts: Parts, device: Device) -> OperatorBinder:
    return OperatorBinder(
        [(offer.plugin, implementation) for offer, implementation in parts.operators()],
        device=device.torch_device.type,
        pins=parts.plan.config.get("operator"),
        deterministic=is_deterministic(parts, device),
    )


def _in_stages(parts: Parts) -> Iterator[str | None]:
    """Keys of the strategies in the order in which they are applied; None where the precision's turn comes."""
    offers = strategies_of(parts)
    ordered, turn = stage_order(offers), before_precision(offers)
    yield from ordered[:turn]
    yield None
    yield from ordered[turn:]


def fill(parts: Parts, drawn: Blueprint, device: Device, weights: Path | None = None) -> None:
    """Give the model memory, and weights: those given here, else `init`'s, the model's path's, the seed's.

    :param weights: Hugging Face folder.
    """
    model, whole = drawn.model, drawn.layout.whole
    weight_map = cast("Model", model).weight_map()
    pick = parts.plan.pick("model")
    assert pick is not None
    check_coverage(model, weight_map, plugin=pick.plugin, whole=whole)
    materialise(model, device.torch_device)
    for strategy in drawn.strategies:
        strategy.filled(model)
    mine = drawn.layout.parts(model)
    source = weights or parts.core.init or pick.source
    if source:
        read_weights(model, weight_map, Path(source), parts=mine, whole=whole)
    else:
        initialise(model, weight_map, parts.core.seed, parts=mine, whole=whole)


def _masters(drawn: Blueprint, ranks: Ranks) -> MasterWeights:
    placed = Placed(drawn.layout, ranks)
    return master_weights(drawn.model, drawn.policy, drawn.followers, drawn.treatments, placed)


def _optimizer(parts: Parts, drawn: Blueprint, masters: MasterWeights) -> Optimizer:
    optimizer: Optimizer = parts.make("optimizer", masters.optimized, state_dtype=drawn.policy.state)
    drawn.binder.bind([optimizer], dtype=drawn.policy.parameter)
    drawn.binder.refuse_idle_pins()
    return optimizer
