"""What an NVIDIA GPU can do, from its properties."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from xtuner_core.contracts.device import DeviceFacts


class Properties(Protocol):
    """The fields of `torch.cuda.get_device_properties` that are read here."""

    name: str
    major: int
    minor: int
    total_memory: int


PEAKS: Mapping[str, Mapping[str, float]] = {
    # NVIDIA H100 Tensor Core GPU data sheet, columns SXM, PCIe and NVL, halved where it counts sparsity.
    "H100 PCIe": {"bfloat16": 756e12, "float16": 756e12, "float8_e4m3fn": 1513e12},
    "H100 NVL": {"bfloat16": 835.5e12, "float16": 835.5e12, "float8_e4m3fn": 1670.5e12},
    "H100": {"bfloat16": 989.4e12, "float16": 989.4e12, "float8_e4m3fn": 1978.9e12},
    # NVIDIA H200 and H800 data sheets: the same compute as H100 SXM.
    "H200 NVL": {"bfloat16": 835.5e12, "float16": 835.5e12, "float8_e4m3fn": 1670.5e12},
    "H200": {"bfloat16": 989.4e12, "float16": 989.4e12, "float8_e4m3fn": 1978.9e12},
    "H800": {"bfloat16": 989.4e12, "float16": 989.4e12, "float8_e4m3fn": 1978.9e12},
    # NVIDIA A100 and A800 data sheets.
    "A100": {"bfloat16": 312e12, "float16": 312e12},
    "A800": {"bfloat16": 312e12, "float16": 312e12},
    # NVIDIA L40S and A10 data sheets.
    "L40S": {"bfloat16": 362.05e12, "float16": 362.05e12, "float8_e4m3fn": 733e12},
    "A10": {"bfloat16": 125e12, "float16": 125e12},
}
"""Dense FLOP/s by dtype. The first entry whose words all stand in the chip's name counts."""

ALWAYS = frozenset(
    {
        "dtype.fp64",
        "dtype.fp32",
        "dtype.fp16",
        "comm.collectives",
        "comm.all_to_all",
        "device.streams",
        "device.pinned_memory",
        "memory.offload",
        "memory.snapshot",
    }
)
_FROM = {"dtype.bf16": (8, 0), "dtype.fp8": (8, 9)}


def facts_of(properties: Properties) -> DeviceFacts:
    """Read capabilities off the compute capability and peaks off the data sheets."""
    capability = (properties.major, properties.minor)
    lacks = {
        word: f"{properties.name} has compute capability {capability[0]}.{capability[1]}, "
        f"and this needs {least[0]}.{least[1]}"
        for word, least in _FROM.items()
        if capability < least
    }
    return DeviceFacts(
        chip=properties.name,
        capabilities=ALWAYS | (_FROM.keys() - lacks.keys()),
        lacks=lacks,
        memory_bytes=properties.total_memory,
        peak_flops=_peaks(properties.name),
    )


def _peaks(chip: str) -> Mapping[str, float]:
    words = set(chip.replace("-", " ").split())
    return next((peaks for name, peaks in PEAKS.items() if words >= set(name.split())), {})
