"""What is installed: entry points read once as metadata. Nothing is imported here."""

from __future__ import annotations

import importlib.util
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, distribution, entry_points

PLUGINS = "xtuner_core.plugins"
"""Entry point group of plugins: name = module."""
CORE = "xtuner-core"
"""The distribution whose plugins are always active; nobody else can claim their names."""
OFFERS = "xtuner_core.offers"
"""Entry point group of the offers index: `slot/name` = the owning plugin's module."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An installed plugin, not imported."""

    name: str
    module: str
    distribution: str
    version: str
    editable: bool
    """Whether its files may change while its version stays."""
    fault: str = ""
    """Why it cannot be activated, where that shows without importing it."""

    def __str__(self) -> str:
        return f"plugin {self.name!r} ({self.distribution} {self.version})"


@dataclass(frozen=True, slots=True)
class Discovery:
    """Everything that is installed."""

    candidates: Mapping[str, Candidate] = field(default_factory=dict)
    clashes: Mapping[str, tuple[Candidate, ...]] = field(default_factory=dict)
    """Names that several distributions claim: the core's keep theirs, others cannot be activated."""
    index: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """`slot/name` to the names of the plugins that list it."""

    def owners(self, slot: str, name: str) -> tuple[str, ...]:
        """Plugins whose distribution lists this offer; slot `hf` asks for a Hugging Face `model_type`."""
        return self.index.get(f"{slot}/{name}", ())

    def listed(self, slot: str) -> dict[str, tuple[str, ...]]:
        """Names of a slot in the index, and the plugins that list each."""
        prefix = f"{slot}/"
        return {key.removeprefix(prefix): value for key, value in self.index.items() if key.startswith(prefix)}

    def of_distribution(self, name: str) -> list[str]:
        """Plugins of one distribution."""
        return sorted(item.name for item in self.candidates.values() if item.distribution == name)


def discover() -> Discovery:
    """Scan the environment once."""
    points = entry_points()
    known: dict[str, _Metadata] = {}
    claims: dict[str, dict[str, Candidate]] = defaultdict(dict)
    for point in points.select(group=PLUGINS):
        candidate = _candidate(point, _read(point, known))
        claims[point.name][candidate.distribution] = candidate
    single = {name: found.get(CORE, next(iter(found.values()))) for name, found in claims.items()}
    clashes = {name: tuple(found.values()) for name, found in claims.items() if len(found) > 1}
    undecided = {name for name, found in clashes.items() if CORE not in claims[name]}
    candidates = {name: candidate for name, candidate in single.items() if name not in undecided}
    claimed = [candidate for found in claims.values() for candidate in found.values()]
    offers = [(point, _read(point, known).name) for point in points.select(group=OFFERS)]
    return Discovery(candidates, clashes, _index(offers, claimed))


@dataclass(frozen=True, slots=True)
class _Metadata:
    """What a distribution's metadata says; parsing it takes longer than all else here."""

    name: str
    version: str
    editable: bool
    missing: tuple[str, ...]
    """Distributions that it requires and that are not there."""


def _read(point: EntryPoint, known: dict[str, _Metadata]) -> _Metadata:
    dist = point.dist
    assert dist is not None
    folder = str(dist.locate_file("")) + str(getattr(dist, "_path", ""))
    if folder not in known:
        metadata = dist.metadata
        missing = tuple(name for name in _required(metadata.get_all("Requires-Dist") or ()) if not _installed(name))
        known[folder] = _Metadata(
            metadata["Name"] or "unknown", metadata["Version"] or "unknown", _is_editable(dist), missing
        )
    return known[folder]


def _candidate(point: EntryPoint, dist: _Metadata) -> Candidate:
    return Candidate(point.name, point.value, dist.name, dist.version, dist.editable, _fault(point, dist.missing))


def _is_editable(dist: Distribution) -> bool:
    try:
        found = json.loads(dist.read_text("direct_url.json") or "{}")
    except ValueError:
        return True  # nobody knows, so its files are hashed
    info = found.get("dir_info") if isinstance(found, dict) else None
    return isinstance(info, dict) and bool(info.get("editable"))


def _fault(point: EntryPoint, missing: Iterable[str]) -> str:
    if not all(part.isidentifier() for part in point.value.split(".")):
        return f"its entry point {point.value!r} names no module"
    root = point.value.partition(".")[0]
    if not _is_there(root):
        return f"its package {root!r} is not there"
    return f"it requires {', '.join(missing)}, not installed" if missing else ""


def _is_there(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def _required(lines: Iterable[str]) -> list[str]:
    plain = [line for line in lines if ";" not in line]
    return [match.group() for line in plain if (match := re.match(r"[A-Za-z0-9._-]+", line))]


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _index(points: Iterable[tuple[EntryPoint, str]], candidates: Iterable[Candidate]) -> dict[str, tuple[str, ...]]:
    by_module = {(item.distribution, item.module): item.name for item in candidates}
    index: dict[str, set[str]] = defaultdict(set)
    for point, dist in points:
        owner = by_module.get((dist, point.value))
        if owner is not None:
            index[point.name].add(owner)
    return {key: tuple(sorted(owners)) for key, owners in sorted(index.items())}
