"""Entries of a weight map for the blocks of `xtuner_core.nn`, under the usual names of Hugging Face checkpoints.

Queries, keys and values lie in one matrix, and so do gate and up; a checkpoint keeps each of them alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from xtuner_core.contracts.weights import Init, Span, WeightEntry
from xtuner_core.nn.mla import LatentSizes

ONES = Init("constant", 1.0)
ZEROS = Init("constant", 0.0)


def norm_entry(theirs: str, ours: str) -> WeightEntry:
    """The weight of a `RMSNorm`."""
    return WeightEntry(hf_name=f"{theirs}.weight", parameter=f"{ours}.weight", init=ONES)


def linear_entries(theirs: str, ours: str, init: Init, *, bias: bool = False) -> Iterator[WeightEntry]:
    """A matrix, and its bias where it has one.

    :param theirs: name of the module in the checkpoint; `ours` in the model.
    """
    yield WeightEntry(hf_name=f"{theirs}.weight", parameter=f"{ours}.weight", init=init)
    if bias:
        yield WeightEntry(hf_name=f"{theirs}.bias", parameter=f"{ours}.bias", init=ZEROS)


def fused_entries(
    theirs: str, ours: str, rows: Mapping[str, int], init: Init, *, bias: bool = False
) -> Iterator[WeightEntry]:
    """Matrices of the checkpoint that are one matrix here, the first one's rows on top.

    :param theirs: what the checkpoint's names begin with, before `.NAME_proj`.
    :param rows: NAME to rows, in the order in which they lie.
    """
    start = 0
    for name, count in rows.items():
        index = (Span(start, start := start + count),)
        yield WeightEntry(hf_name=f"{theirs}.{name}_proj.weight", parameter=f"{ours}.weight", index=index, init=init)
        if bias:
            yield WeightEntry(hf_name=f"{theirs}.{name}_proj.bias", parameter=f"{ours}.bias", index=index, init=ZEROS)


def attention_entries(
    theirs: str,
    ours: str,
    heads: tuple[int, int, int],
    init: Init,
    *,
    bias: bool = False,
    out_bias: bool = False,
    qk_norm: bool = False,
) -> Iterator[WeightEntry]:
    """The entries of an `Attention`.

    :param heads: query heads, key-value heads, channels of a head.
    """
    query, key, channels = heads
    rows = {"q": query * channels, "k": key * channels, "v": key * channels}
    yield from fused_entries(theirs, f"{ours}.qkv", rows, init, bias=bias)
    yield from linear_entries(f"{theirs}.o_proj", f"{ours}.out", init, bias=out_bias)
    for name in ("q_norm", "k_norm") if qk_norm else ():
        yield WeightEntry(hf_name=f"{theirs}.{name}.weight", parameter=f"{ours}.{name}", init=ONES)


def latent_attention_entries(
    theirs: str, ours: str, sizes: LatentSizes, init: Init, *, bias: bool = False, out_bias: bool = False
) -> Iterator[WeightEntry]:
    """The entries of a `LatentAttention`, under the names of DeepSeek's checkpoints."""
    keys = {"kv_a": sizes.latent + sizes.rotary_dim}
    if sizes.query_latent is None:
        rows = {"q": sizes.queries, **keys}
    else:
        rows = {"q_a": sizes.query_latent, **keys}
        yield norm_entry(f"{theirs}.q_a_layernorm", f"{ours}.query_norm")
        yield from linear_entries(f"{theirs}.q_b_proj", f"{ours}.query_up", init)
    for entry in fused_entries(theirs, f"{ours}.down", rows, init, bias=bias):
        yield replace(entry, hf_name=entry.hf_name.replace(".kv_a_proj.", ".kv_a_proj_with_mqa."))
    yield norm_entry(f"{theirs}.kv_a_layernorm", f"{ours}.latent_norm")
    yield from linear_entries(f"{theirs}.kv_b_proj", f"{ours}.up", init)
    yield from linear_entries(f"{theirs}.o_proj", f"{ours}.out", init, bias=out_bias)


def mlp_entries(theirs: str, ours: str, ff: int, init: Init, *, bias: bool = False) -> Iterator[WeightEntry]:
    """The entries of an `MLP` of inner width `ff`."""
    yield from fused_entries(theirs, f"{ours}.gate_up", {"gate": ff, "up": ff}, init, bias=bias)
    yield from linear_entries(f"{theirs}.down_proj", f"{ours}.down", init, bias=bias)
