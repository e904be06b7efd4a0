"""What the strategies of a run claim of its ranks, and whether the ranks can be divided so. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from xtuner_core.config.schema import section_of
from xtuner_core.errors import ComposeError
from xtuner_core.records import ParallelismProvider, Problem
from xtuner_core.registry import Offer
from xtuner_core.views import Claim, Views, divide

AUTO = "auto"
"""A size that is left to the core."""


def claims(strategies: Mapping[str, Offer], config: Mapping[str, Any]) -> list[Claim]:
    """Every dimension that a strategy owns, with the size that the configuration gives it.

    :param strategies: parallelism offers by the key that chose them.
    :param config: the resolved configuration.
    """
    found: list[Claim] = []
    for key, offer in strategies.items():
        values = section_of(config, key)
        for dimension in cast("ParallelismProvider[Any]", offer.provider).dimensions:
            given = values[dimension.size]
            size = None if given in (AUTO, None) else int(given)
            found.append(Claim(dimension=dimension, size=size, key=key))
    return found


def world_problems(strategies: Mapping[str, Offer], config: Mapping[str, Any], world: int) -> list[Problem]:
    """Why so many ranks cannot be divided as the strategies ask."""
    found = divide(world, claims(strategies, config))
    return [] if isinstance(found, Views) else found


def views_of(strategies: Mapping[str, Offer], config: Mapping[str, Any], world: int) -> Views:
    """The views of a run's ranks.

    :raises ComposeError: they cannot be divided so.
    """
    found = divide(world, claims(strategies, config))
    if not isinstance(found, Views):
        raise ComposeError(found)
    return found
