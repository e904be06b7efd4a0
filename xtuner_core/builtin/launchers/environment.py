"""What torchrun tells a rank, all of it by environment variables; nowhere else are they read.

Names: https://docs.pytorch.org/docs/stable/elastic/run.html, "Environment Variables". Imports no torch.
"""

from __future__ import annotations

import os

from xtuner_core.contracts.launcher import Membership


def started_by_torchrun() -> bool:
    """Whether torchrun started this process as a rank."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ


def world_size() -> int:
    """How many ranks torchrun has started."""
    return int(os.environ["WORLD_SIZE"])


def membership() -> Membership:
    """This rank's place.

    The store that torchrun's agent serves outlives an attempt, and nothing in its names tells attempts apart; so
    the attempt is part of the place.
    """
    values = os.environ
    serves = values.get("TORCHELASTIC_USE_AGENT_STORE", "") == "True"
    return Membership(
        rank=int(values["RANK"]),
        world_size=int(values["WORLD_SIZE"]),
        local_rank=int(values["LOCAL_RANK"]),
        local_world_size=int(values["LOCAL_WORLD_SIZE"]),
        store=f"{'agent' if serves else 'tcp'}:{values['MASTER_ADDR']}:{values['MASTER_PORT']}",
        attempt=int(values["TORCHELASTIC_RESTART_COUNT"]),
    )
