"""The technique of a comparison with a `transformers` model: in float64 throughout, key by key of the checkpoint.

`transformers` casts to float32 inside whatever the dtype (norms, routers, rotary tables, the softmax of attention),
so that its float64 results are exact to 1e-7 only. `Widen` turns those requests into float64, and `Only64` proves
that nothing else is left.

T tokens, V vocabulary, E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from xtuner_core.contracts.batch import Document, pack
from xtuner_core.contracts.model import Model, ModelOutput
from xtuner_core.hf.targets import named_tensors, region
from xtuner_core.nn import Router
from xtuner_core.testing.steps import distance

ReferenceTensor = Callable[[Mapping[str, Tensor], str], Tensor]
"""From the reference's tensors by name and a key of the checkpoint to the tensor of that key."""


class Widen(TorchFunctionMode):
    """Turns every request for float32 into one for float64."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is Tensor.float:
            func = Tensor.double
        return func(*tree_map(_wide, args), **tree_map(_wide, dict(kwargs or {})))


def _wide(item: Any) -> Any:
    return torch.float64 if item is torch.float32 else item


class Only64(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Fails where any operation, of the backward pass too, makes a floating-point tensor that is not float64."""

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for item in tree_leaves(result):
            if isinstance(item, Tensor) and item.is_floating_point():
                assert item.dtype == torch.float64, (func, item.dtype)
        return result


def transformers_model(name: str, config: Mapping[str, Any], dtype: torch.dtype) -> nn.Module:
    """Build a model of `transformers` with plain attention and, where it has experts, plain ones.

    :param name: of its class, `"Qwen3MoeForCausalLM"`.
    :param config: what `ModelConfig.to_hf` returns.
    """
    import transformers

    cls: Any = getattr(transformers, name)
    plain = {"attn_implementation": "eager"}
    if cls._can_set_experts_implementation():
        plain["experts_implementation"] = "eager"
    model: nn.Module = cls._from_config(cls.config_class(**config), **plain).to(dtype)
    return model


def same_key(tensors: Mapping[str, Tensor], key: str) -> Tensor:
    """The tensor of a key in a reference that keeps each tensor under its key."""
    return tensors[key]


def copy_weights(model: nn.Module, reference: nn.Module, find: ReferenceTensor) -> None:
    """Give the reference the weights of our model, key by key."""
    theirs, ours = named_tensors(reference), named_tensors(model)
    with torch.no_grad():
        for entry in cast(Model, model).weight_map().entries:
            find(theirs, entry.hf_name).copy_(region(entry, ours))


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How far our model and the reference are apart, as |ours - theirs| / |theirs|."""

    logits: float
    gradients: dict[str, float]
    """By key of the checkpoint."""
    margin: float
    """Least gap, over tokens and routers, between the probability of the last expert that is chosen and that of
    the next: far above rounding, or two right models could choose differently. Infinite without experts."""

    def worst(self, bound: float) -> dict[str, float]:
        """The gradients that are further apart than `bound`, or not numbers."""
        return {key: value for key, value in self.gradients.items() if not value < bound}


def compare(
    model: nn.Module,
    make_reference: Callable[[], nn.Module],
    documents: Sequence[Document],
    *,
    find: ReferenceTensor = same_key,
    exact: bool,
) -> Comparison:
    """Compare logits and the gradients of a weighted loss.

    Ours sees one pack with filler, the reference each document alone.

    :param make_reference: builds the reference in the dtype of ours, on the CPU.
    :param exact: lift the reference's own float32 to float64; ours must then be in float64.
    """
    batch = pack(documents, capacity=sum(len(document) for document in documents) + 5)
    output: ModelOutput = model(batch)
    hidden_TD, head = output.predictions[0].hidden_TD, cast(Any, model).head
    dtype = hidden_TD.dtype
    model.zero_grad()
    torch.autograd.backward((head(hidden_TD, batch.labels)[0] * -batch.weights.to(dtype)).sum())
    logits_TV = head(hidden_TD)[: batch.tokens]
    labels_T1, weights_T = batch.labels[: batch.tokens, None].clamp(min=0), batch.weights[: batch.tokens].to(dtype)
    with ExitStack() as stack:
        if exact:
            stack.enter_context(Widen())
        reference = make_reference()
        copy_weights(model, reference, find)
        if exact:
            stack.enter_context(Only64())  # type: ignore[no-untyped-call]
        reference_TV = reference_logits(reference, documents)
        chosen_T = reference_TV.log_softmax(-1).gather(1, labels_T1)[:, 0]
        torch.autograd.backward((chosen_T * -weights_T).sum())
    return Comparison(
        logits=distance(logits_TV, reference_TV),
        gradients=_gradients(model, reference, find),
        margin=smallest_margin(model, documents),
    )


def _gradients(model: nn.Module, reference: nn.Module, find: ReferenceTensor) -> dict[str, float]:
    ours = {name: _grad(parameter) for name, parameter in named_tensors(model).items()}
    theirs = {name: _grad(parameter) for name, parameter in reference.named_parameters()}
    return {
        entry.hf_name: distance(region(entry, ours), find(theirs, entry.hf_name))
        for entry in cast(Model, model).weight_map().entries
        if entry.parameter in dict(model.named_parameters(remove_duplicate=False))
    }


def _grad(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def reference_logits(reference: nn.Module, documents: Sequence[Document]) -> Tensor:
    """The reference's logits of each document alone, one after the other: [T, V]."""
    return torch.cat([reference(input_ids=d.token_ids[None], use_cache=False).logits[0] for d in documents])


def smallest_margin(model: nn.Module, documents: Sequence[Document]) -> float:
    """Measure `Comparison.margin` at the routers that are `xtuner_core.nn.Router`."""
    gaps: list[float] = []

    def keep(router: Any, args: Any, routing: Any) -> None:
        ranked_TE = routing.probs_TE.sort(-1, descending=True).values
        gaps.append((ranked_TE[:, router.top_k - 1] - ranked_TE[:, router.top_k]).min().item())

    routers = [module for module in model.modules() if isinstance(module, Router)]
    hooks = [router.register_forward_hook(keep) for router in routers if router.top_k < router.experts]
    with torch.no_grad():
        model(pack(documents))
    for hook in hooks:
        hook.remove()
    return min(gaps, default=float("inf"))
