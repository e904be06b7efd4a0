"""A region that is recomputed, and the modules that take part in it, as classes mixed into those of a model.

Only the class of a module changes (as `fully_shard` does it too): names, roles, operators and parameters stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from xtuner_core.builtin.recompute.kept import keep, keep_again
from xtuner_core.builtin.recompute.offload import Offload


class Region:
    """Shared by a recomputed module and the modules inside it whose calls are kept.

    :param offload: where the recomputed module's inputs go; None leaves them where they are.
    """

    def __init__(self, offload: Offload | None = None) -> None:
        self.offload = offload
        self.now: Pass | None = None
        """The pass that is under way; None outside of one, and inside a kept call."""

    def keep(self, call: Callable[..., Any], arguments: Sequence[Any]) -> Any:
        """Make a call, or in the recomputation have its outputs again."""
        if self.now is None:
            return call(*arguments)
        return self.now.keep(call, arguments)


class Pass(AbstractContextManager[None]):
    """A pass through a region.

    :param kept: outputs of kept calls in their order; the first pass writes them, each later one reads them.
    """

    def __init__(self, region: Region, kept: list[Any], *, first: bool) -> None:
        self._region, self._kept, self._first = region, kept, first
        self._place = 0

    def __enter__(self) -> None:
        self._before, self._region.now = self._region.now, self
        self._place = 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._region.now = self._before

    def keep(self, call: Callable[..., Any], arguments: Sequence[Any]) -> Any:
        """See `Region.keep`."""
        if not self._first:
            self._place += 1
            return keep_again(self._kept[self._place - 1], arguments)
        self._region.now = None
        try:
            output, kept = keep(call, arguments)
        finally:
            self._region.now = self
        self._kept.append(kept)
        return output


class Recomputed(nn.Module):
    """Mixed into a module whose forward is computed again in the backward pass.

    Without gradients, or with a key-value cache (which a second pass would fill twice), it is what it was.
    """

    _region: Region

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """What the module itself returns."""
        region, kept = self._region, list[Any]()
        if not torch.is_grad_enabled() or any(map(_has_cache, (*arguments, *named.values()))):
            return super().forward(*arguments, **named)
        with nullcontext() if region.offload is None else region.offload.of(arguments):
            return checkpoint(
                super().forward,
                *arguments,
                use_reentrant=False,
                context_fn=lambda: (Pass(region, kept, first=True), Pass(region, kept, first=False)),
                **named,
            )


class Kept(nn.Module):
    """Mixed into a module whose forward is made once."""

    _region: Region

    def forward(self, *arguments: Any) -> Any:
        """What the module itself returns."""
        return self._region.keep(super().forward, arguments)


class KeptPlan(nn.Module):
    """Mixed into a dispatcher whose plan is made once, and with it what the host waits for."""

    _region: Region

    def prepare(self, *arguments: Any) -> Any:
        """What the dispatcher itself prepares."""
        return self._region.keep(super().prepare, arguments)  # type: ignore[misc]


def _has_cache(argument: Any) -> bool:
    return hasattr(getattr(argument, "cache", argument), "attend")
