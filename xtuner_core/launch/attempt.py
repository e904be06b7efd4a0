"""One attempt at a run on this host: all ranks started together, watched, and ended together."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

from xtuner_core.contracts.launcher import Job, Membership, RankFailure
from xtuner_core.launch.child import Child
from xtuner_core.launch.files import FOLDER, RankFiles
from xtuner_core.launch.orders import write_orders
from xtuner_core.launch.watch import ended_after, watch


def attempt_here(
    job: Job, attempt: int, *, nproc: int, interface: str | None, grace_seconds: float
) -> RankFailure | None:
    """Start so many ranks on this host and wait until all have ended; no process is left behind.

    :param attempt: counts from 0.
    :param interface: to which the servers of gloo and NCCL are bound; None leaves it to them.
    :param grace_seconds: for ranks to end by themselves once another has failed.
    """
    run = Path(job.start.folder)
    # A name that no earlier attempt had: ranks must not meet the addresses of the dead.
    store = run / FOLDER / f"store-{attempt}-{secrets.token_hex(4)}"
    children: list[Child] = []
    try:
        with ended_after(children, grace_seconds):
            for rank in range(nproc):
                place = Membership(
                    rank=rank,
                    world_size=nproc,
                    local_rank=rank,
                    local_world_size=nproc,
                    store=f"file:{store}",
                    attempt=attempt,
                    interface=interface,
                )
                children.append(_child(job, RankFiles(run, rank), place))
            return watch(
                children,
                stop_reason=job.stop_reason,
                timeout_seconds=job.timeout_seconds,
                grace_seconds=grace_seconds,
            )
    finally:
        with suppress(OSError):
            store.unlink()


def _child(job: Job, files: RankFiles, place: Membership) -> Child:
    files.clear()
    write_orders(files.orders, place, job.start)
    return Child(files, [*_environment(place.interface), *job.command, str(files.orders)])


def _environment(interface: str | None) -> list[str]:
    """The words before a command that set variables for it: gloo and NCCL can be told their interface only so."""
    names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME")
    return [] if interface is None else ["env", *(f"{name}={interface}" for name in names)]
