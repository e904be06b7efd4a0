"""Processor cores shared by the ranks of a host."""

from __future__ import annotations

import os

import torch


def share_cores(local_world_size: int) -> None:
    """Have PyTorch take this rank's share of the cores, unless it was told to take fewer."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(1, min(torch.get_num_threads(), cores // local_world_size)))
