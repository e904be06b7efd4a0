"""What came of a run, for a person or for a program."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from textwrap import indent
from typing import Any

from xtuner_core.contracts.observer import RunEnd

SAMPLE_CHARACTERS = 400


def as_json(end: RunEnd) -> str:
    """One line of JSON."""
    data = {"status": end.status, "steps": end.steps, "seconds": end.seconds, **end.summary}
    return json.dumps(data, default=str)


def as_text(end: RunEnd) -> str:
    """Write a few lines: how it ended, held-out bits per byte, samples, where the weights lie."""
    return "\n".join(_lines(end))


def _lines(end: RunEnd) -> Iterator[str]:
    yield f"{end.status} after {end.steps} steps in {end.seconds:.1f} s{_pace(end.summary)}"
    yield from _held_out(end.summary)
    yield from _samples(end.summary)
    if end.summary.get("export"):
        yield f"weights: {end.summary['export']}"


def _pace(summary: Mapping[str, Any]) -> str:
    loss, rate = summary.get("loss"), summary.get("tokens_per_second")
    return (f", {rate:,.0f} tokens/s" if rate else "") + (f", loss {loss:.3f}" if loss is not None else "")


def _held_out(summary: Mapping[str, Any]) -> Iterator[str]:
    held_out = summary.get("held_out")
    if not held_out:
        return
    xz, before, size = summary.get("xz"), summary.get("held_out_at_start"), held_out.get("bytes")
    line = f"held-out {'text' if size else 'data'}: {_score(held_out)}" + (f" over {size} bytes" if size else "")
    if before:
        line += f"; before the first step: {_score(before)}"
    if xz:
        line += f"; xz -9e given the training text: {xz['bits_per_byte']:.3f} ({xz['ratio']:.2f} of it)"
    yield line


def _score(found: Mapping[str, float]) -> str:
    if "bits_per_byte" in found:
        return f"{found['bits_per_byte']:.3f} bits per byte"
    return f"loss {found['loss']:.3f}, perplexity {found['perplexity']:.2f}"


def _samples(summary: Mapping[str, Any]) -> Iterator[str]:
    for sample in summary.get("samples", ()):
        text = f"{sample['prompt']}|{sample['text']}"
        more = " …" if len(text) > SAMPLE_CHARACTERS else ""
        yield "sample (what stands after | is the model's):"
        yield indent(text[:SAMPLE_CHARACTERS].rstrip() + more, "  ")
