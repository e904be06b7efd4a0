"""The frozen outcome of wiring: plain data with a digest, which ranks and actors replay."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from xtuner_core.errors import ConfigError, PlanMismatch

SCHEMA = 1
"""Version of the plan's own form."""

FREE = (
    "config.checkpoint",
    "config.data.cache",
    "config.data.workers",
    "config.export",
    "config.launcher",
    "config.observer",
    "config.output",
    "config.parallelism",
    "config.profile",
    "config.ranks",
    "config.time_limit_seconds",
    "picks.launcher",
    "picks.observer",
    "picks.parallelism",
)
"""What decides no number of a run, but by rounding: it may be another when the run goes on."""
FREE_SLOTS = frozenset({"observer", "launcher", "parallelism", "dispatcher"})
"""Slots whose picks decide none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPlugin:
    """An active plugin and exactly which one."""

    name: str
    module: str
    distribution: str
    version: str
    contract: str
    content: str | None = None
    """Hash of its package's files, where they may change while the version stays (an editable installation)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPick:
    """What the run takes for one key."""

    key: str
    slot: str
    name: str
    plugin: str
    preset: str | None = None
    source: str | None = None
    """Absolute folder of the checkpoint, for `model=PATH`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPatch:
    """What a plugin set, and why."""

    path: str
    value: Any
    plugin: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A wired run. Everything that decides what it computes is in its digest."""

    core: str
    """Version of xtuner-core."""
    plugins: tuple[PlannedPlugin, ...]
    picks: tuple[PlannedPick, ...]
    config: Mapping[str, Any]
    """The resolved configuration: the core's settings at the root, each pick's under its key."""
    origins: Mapping[str, str]
    """Where each value came from, by key."""
    patches: tuple[PlannedPatch, ...] = ()
    notes: tuple[str, ...] = ()
    """What a reader should know: components that depend on the split of the work, say."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Versions of what is beneath (Python, torch): recorded, not compared."""

    def pick(self, key: str) -> PlannedPick | None:
        """The pick of a key, or None."""
        return next((item for item in self.picks if item.key == key), None)

    def picked(self, slot: str) -> list[PlannedPick]:
        """Picks of a slot that stand at the top, in order; nested ones are their owner's affair."""
        return [p for p in self.picks if p.slot == slot and (p.key == slot or p.key.split(".")[:-1] == [slot])]

    @property
    def digest(self) -> str:
        """SHA-256 over everything that decides what the run computes, hexadecimal."""
        return _hash(self._decisive())

    def _decisive(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "core": self.core,
            "plugins": {p.name: asdict(p) for p in self.plugins},
            "picks": {p.key: asdict(p) for p in self.picks},
            "config": dict(self.config),
        }

    def leaves(self) -> dict[str, Any]:
        """Every decisive value by its path in the plan, `config.optimizer.learning_rate`."""
        return dict(_flat(self._decisive(), ""))

    def difference(self, other: Plan) -> list[str]:
        """Every decisive field in which two plans differ, as a line each."""
        return self._lines(other, self._differing(other))

    def changes(self, other: Plan) -> list[str]:
        """As `difference`, without the fields that decide no number (`FREE`, and plugins there for those)."""
        return self._lines(other, self._changed(other))

    def asks_the_same(self, other: Plan) -> bool:
        """Whether both were composed of the same picks and values, whatever the versions of core and plugins.

        Fields that decide no number do not count.
        """
        return not any(key.startswith(("picks.", "config.")) for key in self._changed(other))

    def _changed(self, other: Plan) -> list[str]:
        watching = self._watching() | other._watching()
        free = (*FREE, *(f"plugins.{name}" for name in watching))
        return [key for key in self._differing(other) if not _is_below(key, free)]

    def _differing(self, other: Plan) -> list[str]:
        mine, theirs = self.leaves(), other.leaves()
        return sorted(key for key in {**mine, **theirs} if _shown(mine, key) != _shown(theirs, key))

    def _lines(self, other: Plan, keys: Iterable[str]) -> list[str]:
        mine, theirs = self.leaves(), other.leaves()
        return [f"{key}: {_shown(mine, key)} in the plan, {_shown(theirs, key)} here" for key in keys]

    def _watching(self) -> set[str]:
        """Plugins from which such things are taken and nothing else."""
        others = {pick.plugin for pick in self.picks if pick.slot not in FREE_SLOTS}
        return {pick.plugin for pick in self.picks} - others

    def to_json(self) -> str:
        """The plan as text, with its digest and a short hash of every decisive value, so that an edit shows."""
        data = {"schema": SCHEMA, "digest": self.digest, **asdict(self)}
        data["seal"] = {key: _hash(value)[:12] for key, value in self.leaves().items()}
        return json.dumps(data, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, label: str = "the plan") -> Plan:
        """Read what `to_json` wrote.

        :raises PlanMismatch: it was edited; names the fields.
        :raises ConfigError: it is no plan of this schema.
        """
        try:
            data = json.loads(text)
            if data["schema"] != SCHEMA:
                raise ConfigError(f"{label} has schema {data['schema']}, this core reads {SCHEMA}")
            plan = cls(
                core=data["core"],
                plugins=tuple(PlannedPlugin(**item) for item in data["plugins"]),
                picks=tuple(PlannedPick(**item) for item in data["picks"]),
                config=data["config"],
                origins=data["origins"],
                patches=tuple(PlannedPatch(**item) for item in data["patches"]),
                notes=tuple(data["notes"]),
                environment=data["environment"],
            )
            seal, digest = dict(data["seal"]), data["digest"]
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{label} is no plan: {type(error).__name__}: {error}") from error
        plan._check_seal(seal, digest, label)
        return plan

    def _check_seal(self, seal: Mapping[str, str], digest: str, label: str) -> None:
        now = {key: _hash(value)[:12] for key, value in self.leaves().items()}
        edited = sorted(key for key in {**now, **seal} if now.get(key) != seal.get(key))
        if edited or self.digest != digest:
            fields = ", ".join(edited) or "digest"
            message = f"{label} was edited after it was frozen: {fields}"
            raise PlanMismatch(message, fix="compose a new run with the change on the command line")

    @classmethod
    def load(cls, run: Path) -> Plan:
        """The plan of a run's folder, or of a plan file.

        :raises ConfigError: there is none.
        """
        file = run / "plan.json" if run.is_dir() else run
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise ConfigError(f"{run} is no run's folder: {file} cannot be read ({reason})") from error
        return cls.from_json(text, str(file))


def _shown(leaves: Mapping[str, Any], key: str) -> str:
    return json.dumps(leaves[key], default=str) if key in leaves else "absent"


def _is_below(key: str, prefixes: Iterable[str]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
