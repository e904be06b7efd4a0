"""Who leads and who follows: one rank runs the algorithm, the others do what it orders, in the same order.

An order is its name and its values. What each rank is to work on follows it, dealt to each alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.contracts.parallelism import Ranks
from xtuner_core.engine.ranks.groups import alone
from xtuner_core.engine.ranks.messages import batch_data, batch_of
from xtuner_core.engine.ranks.world import World, lone_world

END = "end"
Handler = Callable[..., object]


class Crew:
    """The ranks of a run at work.

    :param world: the processes.
    :param ranks: how they are divided.
    """

    def __init__(self, world: World, ranks: Ranks) -> None:
        self.world, self.ranks = world, ranks

    @property
    def is_led(self) -> bool:
        """Whether this rank leads others, which wait for its orders."""
        return self.world.leads and not self.world.alone

    def order(self, name: str, **values: Any) -> None:
        """Have every other rank call its handler of that name; nothing where there is no other."""
        if self.is_led:
            self.world.control.share({"order": name, "values": values})

    def deal(self, batches: Sequence[PackedBatch]) -> list[PackedBatch]:
        """Give each rank its micro-batches, by the leading one; this rank's are returned."""
        if self.world.alone:
            return list(batches)
        from xtuner_core.engine.ranks.scatter import scatter

        dealt = scatter(batches, self.ranks.views)
        self.world.control.deal([[batch_data(batch) for batch in mine] for mine in dealt])
        return dealt[0]

    def dealt(self) -> list[PackedBatch]:
        """This rank's micro-batches, from the leading one."""
        return [batch_of(data) for data in self.world.control.deal(None)]

    def gather(self, found: Sequence[Tensor], batches: Sequence[PackedBatch]) -> list[Tensor]:
        """Put together what ranks computed of each token, on the leading rank; the others answer with `answer`."""
        if self.world.alone:
            return list(found)
        from xtuner_core.engine.ranks.scatter import gather

        return gather(self.world.control.gather(list(found)), batches, self.ranks.views)

    def answer(self, found: Sequence[Tensor]) -> None:
        """Give the leading rank what was computed here."""
        self.world.control.gather(list(found))

    def agree(self, tensor: Tensor) -> Tensor:
        """The leading rank's tensor on every rank."""
        return self.world.control.agree(tensor)

    def follow(self, handlers: Mapping[str, Handler], waiting: Callable[[], None]) -> dict[str, Any]:
        """Carry out orders until the one that ends the run.

        :param waiting: called before each order is waited for.
        :return: the values of the last.
        """
        while True:
            waiting()
            told = self.world.control.share()
            if told["order"] == END:
                return dict(told["values"])
            handlers[told["order"]](**told["values"])


def lone_crew(device_type: str = "cpu") -> Crew:
    """The crew of a run with one rank."""
    return Crew(lone_world(), alone(device_type))
