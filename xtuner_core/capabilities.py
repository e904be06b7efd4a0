"""The known capability words, and the negotiation between what is required and what is provided."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from xtuner_core.records import Problem

if TYPE_CHECKING:
    from xtuner_core.contracts.device import DeviceFacts
    from xtuner_core.registry import Offer

CAPABILITIES = {
    "dtype.fp64": "computes in float64",
    "dtype.fp32": "computes in float32",
    "dtype.bf16": "computes in bfloat16",
    "dtype.fp16": "computes in float16",
    "dtype.fp8": "computes in 8-bit floats",
    "comm.collectives": "all-reduce, all-gather and reduce-scatter between ranks",
    "comm.all_to_all": "all-to-all with uneven splits",
    "device.streams": "work queues that run side by side",
    "device.pinned_memory": "host memory that copies do not wait for",
    "memory.offload": "keeps tensors in host memory beside its own, and brings them back",
    "memory.snapshot": "records its allocations, for a look at one step",
    "rollout.generate": "generates trajectories",
    "rollout.logprobs": "returns log-probabilities of what it sampled",
    "rollout.routed_experts": "returns the experts that each token met",
    "rollout.weight_update": "takes new weights while it runs",
    "model.moe": "routes tokens to experts",
    "model.vision": "takes images",
}
"""Word to what it means. A plugin's private words begin with its name (`PluginInfo.capabilities`)."""


def satisfies(provided: Iterable[str], required: str) -> bool:
    """Whether one of `provided` is the word that is required, or one below it."""
    return any(word == required or word.startswith(required + ".") for word in provided)


def unknown_words(offers: Sequence[Offer], private: Mapping[str, str]) -> list[Problem]:
    """Problems with words that nobody declared, with the nearest known one.

    :param private: words that the active plugins declare for themselves.
    """
    known = {*CAPABILITIES, *private}
    problems = []
    for offer in offers:
        for word in sorted({*offer.provider.provides, *offer.provider.requires, *offer.provider.lacks} - known):
            near = get_close_matches(word, known, n=1)
            fix = f"write {near[0]!r}" if near else f"declare it as '{offer.plugin}.…' in PluginInfo.capabilities"
            message = f"{offer} names the capability {word!r}, which is not known"
            problems.append(Problem(message=message, fix=fix, code="unknown_capability", plugins=(offer.plugin,)))
    return problems


def negotiate(
    chosen: Mapping[str, Offer],
    *,
    others: Sequence[Offer] = (),
    facts: DeviceFacts | None = None,
    known: Container[str] | None = None,
) -> list[Problem]:
    """Compare what the chosen offers require with what they provide.

    :param chosen: the offers of a run by the key that chose them.
    :param others: active offers that were not chosen, to say which would serve.
    :param facts: what the device found; None while the run is wired in the launcher.
    :param known: words that exist; a requirement of another is left to `unknown_words`. None: every word does.
    """
    provided = {word for offer in chosen.values() for word in offer.provider.provides}
    denied = {} if facts is None else dict(facts.lacks)
    provided = (provided | (frozenset() if facts is None else facts.capabilities)) - denied.keys()
    return [
        _unmet(key, offer, word, chosen, others, denied)
        for key, offer in chosen.items()
        for word in sorted(offer.provider.requires)
        if not satisfies(provided, word) and (known is None or word in known)
    ]


def _unmet(
    key: str,
    offer: Offer,
    word: str,
    chosen: Mapping[str, Offer],
    others: Sequence[Offer],
    denied: Mapping[str, str],
) -> Problem:
    message = f"{offer} (chosen by {key}) requires {word!r}"
    if word in denied:
        return Problem(
            message=f"{message}, which this device lacks: {denied[word]}",
            code="requirement",
            key=key,
            plugins=(offer.plugin,),
        )
    for other_key, other in chosen.items():
        if word in other.provider.lacks:
            lack = other.provider.lacks[word]
            message = f"{message}, but {other} (chosen by {other_key}) lacks it: {lack.reason}"
            plugins = (offer.plugin, other.plugin)
            return Problem(message=message, fix=lack.fix, code="requirement", key=key, plugins=plugins)
    willing = [f"{other.slot}={other.name}" for other in others if satisfies(other.provider.provides, word)]
    fix = f"choose {' or '.join(willing)}" if willing else "no active plugin provides it"
    message = f"{message}, which nothing that was chosen provides"
    return Problem(message=message, fix=fix, code="requirement", key=key, plugins=(offer.plugin,))
