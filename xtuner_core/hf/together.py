"""How the ranks that write or read the same files meet. Imports no torch.

Two primitives suffice: data of all ranks to the one that leads, and data from it to all. Every step that
ranks take together is one of each, in this order (`agreement.Agreement`), so that a rank that fails tells of it at
its next step, whichever that is, and none waits for one that has given up.
"""

from __future__ import annotations

from typing import Any, Protocol


class Together(Protocol):
    """The ranks of a run, as one of them meets the others: over a control group, on the host.

    All ranks make the same calls in the same order. Data is nested plain data and tensors (`checkpoint.codec`). A call
    raises where a rank is gone.
    """

    rank: int
    size: int

    @property
    def leads(self) -> bool:
        """Whether this is the rank that decides, creates folders, and renames them."""

    def gather(self, data: Any) -> list[Any]:
        """Give data to the rank that leads, which gets that of all by rank; the others get an empty list."""

    def share(self, data: Any) -> Any:
        """Get what the rank that leads gives; what the others give is passed over."""


class Alone:
    """A process that is the only rank."""

    rank = 0
    size = 1
    leads = True

    def gather(self, data: Any) -> list[Any]:
        """Its own data."""
        return [data]

    def share(self, data: Any) -> Any:
        """Its own data."""
        return data


ALONE = Alone()
