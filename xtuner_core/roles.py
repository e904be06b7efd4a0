"""The tree of roles: what a module or a bare parameter is in a model.

Precision, parallelism, recomputation, adapters, freezing, learning rates and weight decay choose by role and
layer, never by a model's attribute names. A selector matches a role and everything below it.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from xtuner_core.errors import UnknownName

ROLES = {
    "embed": "token embedding",
    "attn": "attention",
    "attn.qkv": "projections to queries, keys and values",
    "attn.core": "attention proper; bare parameters such as sinks",
    "attn.out": "output projection",
    "mlp": "dense feed-forward",
    "mlp.up": "projections to the inner width, the gate's included",
    "mlp.down": "projection back",
    "moe": "mixture of experts",
    "moe.router": "router",
    "moe.dispatch": "what brings tokens to experts and back; holds no parameters of its own",
    "moe.experts": "the stacked experts",
    "moe.shared": "experts that every token meets",
    "norm": "normalisation",
    "head": "language head",
    "mtp": "multi-token prediction",
    "layer": "one whole layer of the stack",
    "adapter": "adapter weights",
    "vision": "vision tower",
    "projector": "from a tower's width to the language model's",
}
"""Role to what it means. A plugin adds leaves below one of these, or roots under its own name."""


def matches(role: str, selector: str) -> bool:
    """Whether `selector` names `role` or something above it."""
    return role == selector or role.startswith(selector + ".")


def check_role(role: str, *, known: Iterable[str] = ROLES, plugin: str | None = None) -> None:
    """Refuse a role that is neither known, nor below a known one, nor under the plugin's own name.

    :raises UnknownName: with the nearest known role.
    """
    words = role.split(".")
    parents = {".".join(words[:n]) for n in range(1, len(words) + 1)}
    if parents & set(known) or words[0] == plugin:
        return
    near = get_close_matches(role, list(known), n=1)
    fix = f"write {near[0]!r}" if near else f"use a role of xtuner_core.roles, or one below {plugin!r}"
    raise UnknownName(f"there is no role {role!r}", fix=fix, plugin=plugin)
