"""The manifest of a checkpoint: what it consists of, so that damage and loss are found. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xtuner_core.durable import write_synced
from xtuner_core.engine.checkpoint.layout import MANIFEST, step_of
from xtuner_core.hf.agreement import Agreement

SCHEMA = 1
"""Version of the checkpoint's form."""
_BLOCK = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What the run's metric was right after the checkpoint's step."""

    metric: str
    mode: str
    value: float

    @property
    def rank(self) -> float:
        """Less is better, whatever the mode."""
        return self.value if self.mode == "min" else -self.value


def write_manifest(folder: Path, *, step: int, score: Score | None, agreement: Agreement | None = None) -> None:
    """List every file below `folder` as it lies on the disk, with its size and SHA-256.

    :param agreement: of the ranks that wrote the files, which divide them among themselves to be read.
    """
    agreement = agreement or Agreement()
    # All have written when all have come.
    agreement.meet()
    names = agreement.lead(lambda: _files(folder))
    mine = {name: _entry(folder / name) for name in names[agreement.rank :: agreement.size]}
    entries = {name: entry for found in agreement.meet(mine) for name, entry in found.items()}
    if not agreement.leads:
        return
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "step": step,
        "score": None if score is None else asdict(score),
        "files": {name: entries[name] for name in sorted(names)},
    }
    content["sha256"] = _own_digest(content)
    write_synced(folder / MANIFEST, [(json.dumps(content, indent=1, sort_keys=True) + "\n").encode()])


def read_score(checkpoint: Path) -> Score | None:
    """What a checkpoint's manifest says of its metric; None also where the manifest cannot be read."""
    try:
        score = _read(checkpoint)["score"]
    except (OSError, ValueError):
        return None
    return None if score is None else Score(**score)


def damage(checkpoint: Path, *, below: str = "") -> list[str]:
    """What is wrong with a checkpoint's files, a sentence each; empty where every byte is as it was written.

    :param below: checks only the files in this folder of it.
    """
    try:
        content = _read(checkpoint)
    except OSError as error:
        return [f"{MANIFEST} cannot be read: {error.strerror}"]
    except ValueError as error:
        return [f"{MANIFEST} is damaged: {error}"]
    files = [(name, entry) for name, entry in content["files"].items() if name.startswith(below)]
    return [problem for name, entry in files if (problem := _problem(checkpoint / name, name, entry))]


def _read(checkpoint: Path) -> dict[str, Any]:
    content = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.pop("sha256", None) != _own_digest(content):
        raise ValueError("it is not what was written")
    if content["schema"] != SCHEMA:
        raise ValueError(f"it has schema {content['schema']}, this core reads {SCHEMA}")
    if content["step"] != step_of(checkpoint):
        raise ValueError(f"it is that of step {content['step']}")
    return content


def _own_digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _problem(file: Path, name: str, entry: Mapping[str, Any]) -> str | None:
    try:
        size = file.stat().st_size
        if size != entry["size"]:
            return f"{name} has {size} bytes instead of {entry['size']}"
        return None if _digest(file) == entry["sha256"] else f"{name} has another checksum than when it was written"
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"


def _files(folder: Path) -> list[str]:
    """Largest first, so that they are divided evenly."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return [str(f.relative_to(folder)) for f in sorted(files, key=lambda file: (-file.stat().st_size, file))]


def _entry(file: Path) -> dict[str, Any]:
    return {"size": file.stat().st_size, "sha256": _digest(file)}


def _digest(file: Path) -> str:
    found = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            found.update(block)
    return found.hexdigest()
