"""The contract suite of launchers: what one says of its ranks before any is started."""

from __future__ import annotations

from typing import Any, ClassVar, cast

from xtuner_core.contracts.launcher import Launcher
from xtuner_core.host import Host
from xtuner_core.loading import load
from xtuner_core.records import LauncherProvider
from xtuner_core.registry import Offer
from xtuner_core.testing.suite import OfferSuite


class LauncherContract(OfferSuite):
    """What holds for every launcher; that its ranks train is for its own tests, which know how they are started."""

    slot: ClassVar[str] = "launcher"

    def test_it_says_how_many_ranks_it_makes(self, host: Host, offered: Offer, case: int) -> None:
        """From the configuration alone; at least one."""
        assert self._world(host, offered, case) >= 1

    def test_a_rank_knows_its_place(self, host: Host, offered: Offer, case: int) -> None:
        """Where this process was started as one: within its run and its host, which have as many ranks as was said."""
        place = self._made(host, offered, case).membership()
        if place is not None:
            assert place.world_size == self._world(host, offered, case)
            assert 0 <= place.rank < place.world_size
            assert 0 <= place.local_rank < place.local_world_size <= place.world_size

    def test_restarts_are_counted(self, host: Host, offered: Offer, case: int) -> None:
        """None at least."""
        assert self._made(host, offered, case).max_restarts >= 0

    def _made(self, host: Host, offered: Offer, case: int) -> Launcher:
        made: Launcher = self.parts(host, offered, case).make("launcher")
        return made

    def _world(self, host: Host, offered: Offer, case: int) -> int:
        provider = cast("LauncherProvider[Any]", offered.provider)
        world = load(provider.world, plugin=offered.plugin, distribution=offered.distribution)
        return int(world(self.parts(host, offered, case).config("launcher")))
