"""Run by test_memory.py in a process of its own: prints how far writing and reading raise the peak, in MiB.

The figure is the peak afterwards less what is resident before, so an earlier peak could only make it larger.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from xtuner_core.contracts.weights import Init, WeightEntry, WeightMap
from xtuner_core.hf.read import read_weights
from xtuner_core.hf.write import export

MIB = 2**20
TENSORS, TENSOR_BYTES, SHARD_BYTES = 64, 4 * MIB, 32 * MIB


class Wide(nn.Module):
    """A stack of tensors, every one transposed in the checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(to_hf=lambda: {"model_type": "wide"})
        self.stack = nn.Parameter(torch.full((TENSORS, 1024, TENSOR_BYTES // 4096), 1.0))

    def weight_map(self) -> WeightMap:
        return WeightMap(
            tuple(
                WeightEntry(hf_name=f"t.{n}", parameter="stack", index=(n,), transpose=True, init=Init("normal", 1.0))
                for n in range(TENSORS)
            )
        )


def status(name: str) -> float:
    """A figure of /proc/self/status, in MiB."""
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"^{name}:\s+(\d+) kB$", text, flags=re.MULTILINE).group(1)) / 1024


def growth(action) -> float:
    resident = status("VmRSS")
    action()
    # Not getrusage: what that calls the peak is the parent's at the fork, where that was larger.
    return status("VmHWM") - resident


def main(folder: Path) -> None:
    model = Wide()
    written = growth(lambda: export(model, folder, shard_bytes=SHARD_BYTES))
    with torch.no_grad():
        model.stack.zero_()
    read = growth(lambda: read_weights(model, model.weight_map(), folder))
    assert bool((model.stack == 1).all())
    shards = len(list(folder.glob("*.safetensors")))
    sys.stdout.write(json.dumps({"written": written, "read": read, "shard": SHARD_BYTES / MIB, "shards": shards}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
