"""Plain data, tensors and packs as bytes between ranks, and back; nothing is pickled.

A message is the length of its JSON in eight bytes, the JSON, and the tensors in the form of safetensors.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from xtuner_core.contracts.batch import Axis, Field, MediaSpan, PackedBatch, TokenPart
from xtuner_core.engine.checkpoint.codec import decode, encode

_HEAD = 8
_TENSORS = ("token_ids", "labels", "weights", "positions", "cu_seqlens")


def pack_message(content: Any) -> Tensor:
    """Nested plain data and tensors of any device: uint8 [bytes] on the CPU."""
    plain, tensors = encode(content, "")
    words = json.dumps(plain, separators=(",", ":")).encode()
    body = save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
    whole = bytearray(len(words).to_bytes(_HEAD, "little") + words + body)
    return torch.from_numpy(np.frombuffer(whole, dtype=np.uint8))


def unpack_message(message: Tensor) -> Any:
    """What `pack_message` packed, tensors on the CPU."""
    whole = message.numpy().tobytes()
    end = _HEAD + int.from_bytes(whole[:_HEAD], "little")
    return decode(json.loads(whole[_HEAD:end]), load(whole[end:]))


def batch_data(batch: PackedBatch) -> dict[str, Any]:
    """A pack as plain data and tensors."""
    return {
        **{name: getattr(batch, name) for name in _TENSORS},
        "lengths": batch.lengths,
        "filler": batch.filler,
        "fields": {
            name: {"tensor": item.tensor, "axis": str(item.axis), "pad": item.pad, "split": item.split}
            for name, item in batch.fields.items()
        },
        "media": [asdict(span) for span in batch.media],
        "part": None if batch.part is None else [batch.part.start, batch.part.total],
    }


def batch_of(data: dict[str, Any]) -> PackedBatch:
    """The pack that `batch_data` took apart; of one that is spread over ranks nothing is added up yet."""
    fields = {
        name: Field(tensor=item["tensor"], axis=Axis(item["axis"]), pad=item["pad"], split=item["split"])
        for name, item in data["fields"].items()
    }
    part = data["part"]
    return PackedBatch(
        **{name: data[name] for name in _TENSORS},
        lengths=tuple(data["lengths"]),
        filler=data["filler"],
        fields=fields,
        media=tuple(MediaSpan(**span) for span in data["media"]),
        part=None if part is None else TokenPart(start=part[0], total=part[1], add=_unjoined),
    )


def _unjoined(tensor: Tensor) -> Tensor:
    raise AssertionError("this part of a pack has not been joined to the others")
