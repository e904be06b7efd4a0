"""From joined processes to the crew of a planned run."""

from __future__ import annotations

from typing import Any, cast

from xtuner_core.claims import views_of
from xtuner_core.contracts.device import Device
from xtuner_core.engine.ranks.crew import Crew
from xtuner_core.engine.ranks.groups import RankGroups
from xtuner_core.engine.ranks.world import World
from xtuner_core.parts import Parts
from xtuner_core.records import ParallelismProvider
from xtuner_core.registry import Offer


def made_crew(parts: Parts, device: Device, world: World) -> Crew:
    """Divide the ranks as the plan's strategies ask.

    :raises ComposeError: they cannot be divided so.
    """
    views = views_of(strategies_of(parts), parts.plan.config, world.membership.world_size)
    kind = device.torch_device.type
    return Crew(world, RankGroups(views, world.membership.rank, device_type=kind, timeout=world.timeout))


def strategies_of(parts: Parts) -> dict[str, Offer]:
    """The plan's parallelism offers by their keys."""
    return {pick.key: parts.offer(pick.key) for pick in parts.plan.picked("parallelism")}


def drives_schedule(parts: Parts, key: str) -> bool:
    """Whether a strategy runs forward and backward of a step."""
    return cast("ParallelismProvider[Any]", parts.offer(key).provider).schedule
