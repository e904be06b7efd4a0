"""What building and computing cost, counted: bytes of real memory, floating point operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from xtuner_core.contracts.batch import Document, pack


class RealMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of all tensors that operations make elsewhere than on the meta device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self.made: list[str] = []

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for item in tree_leaves(result):
            if isinstance(item, Tensor) and not item.is_meta:
                self.bytes += item.numel() * item.element_size()
                self.made.append(f"{func}: {item.dtype} {list(item.shape)}")
        return result


def forward_flops(model: nn.Module, lengths: Sequence[int], vocabulary: int) -> int:
    """Count the operations of a forward pass over documents of these lengths, the heads of all predictions included.

    :param model: bound to plain operators (`build_model(plain=True)`); attention counts its whole square.
    """
    documents = [Document.of(torch.arange(length) % vocabulary) for length in lengths]
    batch = pack(documents)
    head = cast(Any, model).head
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for prediction in model(batch).predictions:
            head(prediction.hidden_TD, batch.named(prediction.labels))
    return int(counter.get_total_flops())
