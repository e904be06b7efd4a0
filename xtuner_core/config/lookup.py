"""From what a person writes for a slot to an offer: its name, `provider:preset`, a preset's alias, a path, `auto`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xtuner_core.config.data_files import absolute, entry_name, is_file, wanted_suffix
from xtuner_core.errors import ConfigError, ContractError, PluginError, UnknownName, UsageError
from xtuner_core.hf.config import read_config
from xtuner_core.host import Host
from xtuner_core.loading import load
from xtuner_core.records import DeviceProvider, Preset
from xtuner_core.registry import Offer, reads

if TYPE_CHECKING:
    from xtuner_core.config.picks import Choice


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An offer, and the values that the way of writing it brings along."""

    offer: Offer
    preset: str | None = None
    source: Path | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    """Origin of those values."""


class Lookup:
    """Finds offers among the active plugins, then in the offers index, activating the owner."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.notes: list[str] = []

    def find(self, slot: str, spec: Any) -> Found:
        """The offer that `spec` names.

        :raises UnknownName: nobody offers it; names installed plugins that would serve.
        :raises XTunerCoreError: its plugin is broken, or a checkpoint's config.json cannot be read.
        """
        if not isinstance(spec, str):
            raise ConfigError(f"{spec!r} is no name of a {slot}", fix=f"write {slot}=NAME")
        if slot == "model" and ("/" in spec or spec.startswith(".")):
            return self._checkpoint(Path(spec).expanduser())
        if self._is_file(slot, spec):
            return Found(offer=self._reader(spec), values={"path": absolute(spec)}, label=f"dataset {spec}")
        name, _, preset = spec.partition(":")
        offer = self._offered(slot, name, lambda: self.host.registry.find(slot, name))
        if offer is not None:
            return _with_preset(offer, preset) if preset else Found(offer=offer)
        aliased = self.host.registry.find_alias(slot, spec)
        if aliased is not None:
            return _with_preset(aliased[0], aliased[1].name)
        raise self._unknown(slot, name)

    def entry(self, slot: str, spec: str) -> str:
        """Name of the entry that `slot=SPEC` is short for."""
        if self._is_file(slot, spec):
            return entry_name(spec, self._suffixes())
        return spec.partition(":")[0]

    def start_small(self, offer: Offer) -> Found:
        """An offer that was chosen by its plugin's name: a model starts from its preset `tiny`."""
        tiny = any(preset.name == "tiny" for preset in offer.provider.presets)
        return _with_preset(offer, "tiny") if tiny else Found(offer=offer)

    def automatic(self, slot: str, choices: Mapping[str, Choice]) -> Found:
        """What `auto` means: the accelerator that is here, else the host; the device's own precision."""
        if slot == "device":
            return Found(offer=self._present_device())
        device = choices.get("device")
        if device is None:
            raise UsageError("no device was chosen, so none says what precision it prefers", fix=f"write {slot}=NAME")
        assert isinstance(device.offer.provider, DeviceProvider)
        return self.find(slot, device.offer.provider.precision)

    def started_by(self) -> str | None:
        """The active launcher that started this process as a rank; None where there is none."""
        for offer in self.host.registry.of_slot("launcher"):
            detect = getattr(offer.provider, "detect", None)
            if detect and load(detect, plugin=offer.plugin, distribution=offer.distribution)():
                return offer.name
        return None

    # ── files of data ──────────────────────────────────────────────────────────────────────────────────────────

    def _suffixes(self) -> set[str]:
        """Suffixes that active plugins read, and inactive ones by the index."""
        listed = {f".{name}" for name in self.host.discovery.listed("file")}
        return listed.union(*(reads(offer) for offer in self.host.registry.of_slot("dataset")))

    def _is_file(self, slot: str, spec: str) -> bool:
        """Whether a dataset is written as a file; a word with a dot that nobody offers is one too."""
        if slot != "dataset" or is_file(spec, self._suffixes()):
            return slot == "dataset"
        registry, name = self.host.registry, spec.partition(":")[0]
        known = registry.find(slot, name) or registry.find_alias(slot, spec) or self.host.discovery.owners(slot, name)
        return "." in name and not known

    def _reader(self, spec: str) -> Offer:
        suffix = wanted_suffix(spec, self._suffixes())
        active = self.host.registry.readers(suffix)
        owners = () if active else self.host.discovery.owners("file", suffix[1:])
        names = [offer.name for offer in active] or self._datasets_of(owners)
        if len(active) > 1 or len(owners) > 1:
            sources = " and ".join(map(str, active)) or f"the plugins {' and '.join(map(repr, owners))}"
            ways = " or ".join(f"dataset.NAME.name={name}" for name in names)
            raise UsageError(
                f"files ending in {suffix} are read by {sources}", fix=f"write {ways}, and dataset.NAME.path"
            )
        offer = self._offered("file", suffix[1:], lambda: next(iter(self.host.registry.readers(suffix)), None))
        assert offer is not None, "a suffix comes from an offer or from the index"
        return offer

    def _datasets_of(self, owners: Iterable[str]) -> list[str]:
        listed = self.host.discovery.listed("dataset")
        return sorted(name for name, claimed in listed.items() if set(claimed) & set(owners))

    # ── checkpoints ────────────────────────────────────────────────────────────────────────────────────────────

    def _checkpoint(self, folder: Path) -> Found:
        hf_config = read_config(folder)
        model_type = str(hf_config["model_type"])
        offer = self._offered("hf", model_type, lambda: self.host.registry.find_model_type(model_type))
        if offer is None:
            types = sorted(self.host.discovery.listed("hf"))
            message = f"{folder / 'config.json'} is of model_type {model_type!r}, which no installed plugin reads"
            raise UnknownName(message, fix=f"install a plugin for it; these are read: {', '.join(types) or 'none'}")
        return Found(
            offer=offer,
            source=folder.resolve(),
            values=self._values(offer, hf_config, folder),
            label=f"{folder}/config.json",
        )

    def _values(self, offer: Offer, hf_config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        from dataclasses import asdict

        config: Any = self.host.config_class(offer)
        try:
            return asdict(config.from_hf(hf_config))
        except (ValueError, TypeError) as error:
            fix = f"choose another checkpoint, or a plugin that reads this one; {offer} does not"
            raise ConfigError(f"{folder / 'config.json'}: {error}", fix=fix, plugin=offer.plugin) from error
        except Exception as error:
            message = f"{offer} fails over {folder / 'config.json'}: {type(error).__name__}: {error}"
            fix = f"update or uninstall {offer.distribution}"
            raise PluginError(message, fix=fix, plugin=offer.plugin) from error

    # ── the index, and what to say when nothing is found ───────────────────────────────────────────────────────

    def _offered(self, slot: str, name: str, find: Callable[[], Offer | None]) -> Offer | None:
        """The offer among the active plugins, else from the one installed plugin that lists it."""
        offer = find()
        owners = self.host.discovery.owners(slot, name) if offer is None else ()
        inactive = [owner for owner in owners if owner not in self.host.active]
        if len(inactive) > 1:
            raise UsageError(
                f"{slot} {name!r} is offered by the installed plugins {' and '.join(map(repr, inactive))}",
                fix=" or ".join(f"write --plugins {owner}" for owner in inactive),
            )
        self.host.activate(*inactive)
        offer = find()
        if offer is None and owners:
            candidate = self.host.active[(inactive or owners)[0]]
            message = f"{candidate} lists {slot}/{name} in its offers index, but does not offer it"
            raise ContractError(message, fix=f"update or uninstall {candidate.distribution}", plugin=candidate.name)
        return offer

    def _unknown(self, slot: str, name: str) -> UnknownName:
        registry, listed = self.host.registry, self.host.discovery.listed(slot)
        offered = {offer.name for offer in registry.of_slot(slot)} | listed.keys()
        aliases = {p.alias for o in registry.of_slot(slot) for p in o.provider.presets if p.alias}
        near = get_close_matches(name, [*offered, *aliases], n=1)
        hints = [f"did you mean {near[0]!r}?"] if near else []
        hints.append(f"installed are {', '.join(sorted(offered)) or 'none'}")
        sleeping = sorted({owner for owners in listed.values() for owner in owners} - self.host.active.keys())
        if sleeping and not near:
            hints.append(f"presets are known by their own names once their plugin is: --plugins {'|'.join(sleeping)}")
        hints.append(f"or install a plugin that offers {name!r}")
        return UnknownName(f"no installed plugin offers the {slot} {name!r}", fix="; ".join(hints))

    # ── devices ────────────────────────────────────────────────────────────────────────────────────────────────

    def _present_device(self) -> Offer:
        offers = self.host.registry.of_slot("device")
        present = [offer for offer in offers if self._probe(offer) > 0]
        accelerators = [offer for offer in present if offer.provider.accelerator]  # type: ignore[attr-defined]
        if len(accelerators) > 1:
            names = " and ".join(str(offer) for offer in accelerators)
            fix = "write " + " or ".join(f"device={offer.name}" for offer in accelerators)
            raise UsageError(f"several accelerators are here: {names}", fix=fix)
        self._note_inactive(offers)
        if not present:
            raise UsageError("no active plugin finds its device here", fix="write device=NAME, or --plugins NAME")
        return accelerators[0] if accelerators else present[0]

    def _probe(self, offer: Offer) -> int:
        assert isinstance(offer.provider, DeviceProvider)
        probe = load(offer.provider.probe, plugin=offer.plugin, distribution=offer.distribution)
        try:
            return int(probe().count)
        except Exception as error:
            message = f"{offer} cannot say whether its device is here: {type(error).__name__}: {error}"
            raise PluginError(
                message, fix="name the device that is wanted, device=NAME", plugin=offer.plugin
            ) from error

    def _note_inactive(self, offers: list[Offer]) -> None:
        inactive = self.host.discovery.listed("device").keys() - {offer.name for offer in offers}
        if inactive:
            self.notes.append(
                f"device=auto looked at active plugins only; installed, inactive: {', '.join(sorted(inactive))}"
            )


def _with_preset(offer: Offer, wanted: str) -> Found:
    presets: dict[str, Preset] = {preset.name: preset for preset in offer.provider.presets}
    if wanted not in presets:
        near = get_close_matches(wanted, presets, n=1) or sorted(presets)
        raise UnknownName(
            f"{offer} has no preset {wanted!r}", fix=f"write {offer.name}:{near[0]}" if near else "it has none"
        )
    preset = presets[wanted]
    return Found(offer=offer, preset=wanted, values=preset.values, label=f"preset {wanted} of {offer.name}")
