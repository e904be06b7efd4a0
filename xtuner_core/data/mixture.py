"""In which order the pieces of several datasets come, epoch after epoch, in windows that can be had one by one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import floor
from typing import Any

import numpy as np

from xtuner_core.config.root import DataConfig
from xtuner_core.data.shuffle import Permutation
from xtuner_core.errors import ConfigError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """A dataset of the mixture."""

    name: str
    pieces: int
    """At least 1."""
    tokens: int
    """Of all pieces."""


class Mixture:
    """Each dataset is an endless stream of its pieces, pass after pass; an epoch takes a stretch of every stream.

    Pass p of a dataset is an order of its own, from the seed, the dataset's name and p. An epoch takes as many passes
    as the settings say, in whole pieces; what a fraction leaves over begins the next epoch, so that nothing is taken
    twice before all has been taken once. A window takes its share of every stretch, so that each has the mixture of
    the whole, to a piece.

    :param parts: at least one.
    :param passes: of each part in an epoch, positive.
    :param window: pieces of a window, about.
    """

    def __init__(
        self, parts: Sequence[Part], passes: Sequence[float], *, window: int, seed: int, shuffle: bool
    ) -> None:
        self.parts = tuple(parts)
        self.passes = tuple(passes)
        self._window = window
        self._seed = seed
        self._shuffle = shuffle

    def begin(self, epoch: int) -> list[int]:
        """How many pieces of each stream come before an epoch."""
        return [floor(epoch * n * part.pieces) for n, part in zip(self.passes, self.parts, strict=True)]

    def windows(self, epoch: int) -> int:
        """Windows of an epoch; 0 where fractions leave it without a piece."""
        stretches = zip(self.begin(epoch), self.begin(epoch + 1), strict=True)
        return -(-sum(stop - start for start, stop in stretches) // self._window)

    def cursors(self, epoch: int, window: int) -> list[int]:
        """How many pieces of each stream come before a window; `window` may be the number of windows."""
        count = max(1, self.windows(epoch))
        stretches = zip(self.begin(epoch), self.begin(epoch + 1), strict=True)
        return [start + window * (stop - start) // count for start, stop in stretches]

    def window(self, epoch: int, window: int) -> list[Array]:
        """The pieces of each part in a window, int64, in the order of their streams."""
        bounds = zip(self.parts, self.cursors(epoch, window), self.cursors(epoch, window + 1), strict=True)
        return [self._stretch(part, start, stop) for part, start, stop in bounds]

    def _stretch(self, part: Part, start: int, stop: int) -> Array:
        places = np.arange(start, stop, dtype=np.int64)
        passes, places = np.divmod(places, part.pieces)
        if not self._shuffle:
            return places
        for number in np.unique(passes).tolist():
            chosen = passes == number
            places[chosen] = Permutation(part.pieces, self._seed, part.name, number)(places[chosen])
        return places


def passes(settings: DataConfig, parts: Sequence[Part]) -> list[float]:
    """How often each part is read in an epoch of the whole.

    With `weights`, an epoch has as many tokens as all parts together, shared out by weight: a part of few tokens and
    a great weight is read several times, one of many tokens and a small weight not to its end.
    """
    if not settings.weights:
        return [settings.epochs.get(part.name, 1.0) for part in parts]
    tokens = sum(part.tokens for part in parts)
    whole = sum(settings.weights.values())
    return [settings.weights[part.name] / whole * tokens / part.tokens for part in parts]


def check_names(settings: DataConfig, datasets: Collection[str], trained: Collection[str]) -> None:
    """Compare the names in `weights` and `epochs` with the run's datasets.

    :param trained: those that have a training part.
    :raises ConfigError: one is unknown or has no training part, or `weights` leaves one that has out.
    """
    for key, named in (("data.weights", settings.weights), ("data.epochs", settings.epochs)):
        for name in named:
            if name not in datasets:
                near = get_close_matches(name, list(datasets), n=1)
                fix = f"write {near[0]}" if near else f"the datasets of this run are {', '.join(datasets)}"
                raise ConfigError(f"{key} names {name!r}, which is no dataset of this run", fix=fix)
            if name not in trained:
                raise ConfigError(f"{key} names {name!r}, which has no training part", fix="leave it out there")
    absent = [name for name in trained if settings.weights and name not in settings.weights]
    if absent:
        fix = "give every dataset one, or leave those datasets out of the run"
        raise ConfigError(f"data.weights gives no share to {', '.join(absent)}", fix=fix)
