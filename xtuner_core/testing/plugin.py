"""The contract suite of a whole plugin: its records, its index, its configurations, a plan that uses it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

import pytest
from xtuner_core_kernels.operator import Implementation

from xtuner_core.catalog import describe_offer
from xtuner_core.composition import compose
from xtuner_core.config.describe import field_docs
from xtuner_core.host import Host
from xtuner_core.loading import load
from xtuner_core.records import MANY_SLOTS, SINGLE_SLOTS, UNPICKED_SLOTS
from xtuner_core.registry import Offer, reads
from xtuner_core.testing.children import ask_child
from xtuner_core.testing.tiny_run import compose_tiny, tiny_host


class PluginContract:
    """What holds for every plugin, whatever it offers. The plugin is installed, with its entry points."""

    plugin: ClassVar[str]
    """Its name."""
    overrides: ClassVar[Mapping[str, Any]] = {}
    """What else a run needs where it picks this plugin's offers: `{"precision": "bf16"}`."""

    @pytest.fixture
    def host(self) -> Host:
        """A host in which the plugin is active, beside `tiny`."""
        return tiny_host([self.plugin])

    @pytest.fixture
    def offers(self, host: Host) -> list[Offer]:
        """Everything that it offers."""
        return host.registry.of_plugin(self.plugin)

    def test_activation_and_configurations_import_nothing_heavy(self) -> None:
        """Neither torch nor transformers: the launcher lists and composes without them."""
        assert ask_child("activation", self.plugin) == {"activation": [], "configurations and probes": []}

    def test_a_second_activation_changes_nothing_and_finds_the_same(self, host: Host, offers: list[Offer]) -> None:
        """In one host and in another."""
        host.activate(self.plugin)
        other = tiny_host([self.plugin])
        for each in (host, other):
            assert each.registry.of_plugin(self.plugin) == offers
            assert each.infos[self.plugin] == host.infos[self.plugin]

    def test_it_says_what_it_is_and_what_each_offer_is(self, host: Host, offers: list[Offer]) -> None:
        """In a line each."""
        summaries = [host.infos[self.plugin].summary, *(offer.provider.summary for offer in offers)]
        assert all(text.strip() and "\n" not in text for text in summaries), summaries

    def test_the_offers_index_equals_the_records(self, host: Host, offers: list[Offer]) -> None:
        """Entry points of the group `xtuner_core.offers`, both ways; operators are not listed."""
        listed = {key for key, owners in host.discovery.index.items() if self.plugin in owners}
        recorded = {f"{offer.slot}/{offer.name}" for offer in offers if offer.slot not in UNPICKED_SLOTS}
        read = {f"hf/{kind}" for offer in offers for kind in getattr(offer.provider, "hf_model_types", ())}
        files = {f"file/{suffix[1:]}" for offer in offers for suffix in reads(offer)}
        assert listed == recorded | read | files

    def test_records_are_plain_data(self, host: Host, offers: list[Offer]) -> None:
        """JSON holds everything that a platform is shown of them, and schemas have no fault."""
        for offer in offers:
            described = describe_offer(host, offer)
            assert json.loads(json.dumps(described)) is not None
            assert described["fault"] == ""

    def test_factories_are_there(self, offers: list[Offer]) -> None:
        """A function or a class; of an operator the implementation itself."""
        for offer in offers:
            found = load(offer.provider.factory, plugin=offer.plugin, distribution=offer.distribution)
            assert isinstance(found, Implementation) if offer.slot in UNPICKED_SLOTS else callable(found), str(offer)

    def test_every_configuration_field_has_a_docstring_and_a_default(self, host: Host, offers: list[Offer]) -> None:
        """The string under the field, which `plugins show` and editors print."""
        configs = [host.config_class(offer) for offer in offers] + [host.settings_class(self.plugin)]
        for config in configs:
            if config is not None:
                named = {item.name for item in fields(config)}
                assert named - field_docs(config).keys() == set(), config
                config()

    def test_every_offer_and_preset_can_be_picked(self, host: Host, offers: list[Offer]) -> None:
        """A tiny run that picks it has no problems, but for values that only a user can give."""
        for pick in _picks(offers):
            problems = compose_tiny({**pick, **self.overrides}, host=host).problems
            assert [problem for problem in problems if problem.code != "missing_value"] == [], pick

    def test_its_recipes_compose(self, host: Host) -> None:
        """With what is installed here; what a recipe leaves to the user may be missing."""
        for recipe in host.infos[self.plugin].recipes:
            problems = compose(recipe.name, host=tiny_host([self.plugin])).problems
            assert [problem for problem in problems if problem.code != "missing"] == [], recipe.name

    def test_a_plan_that_uses_it_replays_in_another_process(
        self, host: Host, offers: list[Offer], tmp_path: Path
    ) -> None:
        """With the same digest."""
        picks = ({**pick, **self.overrides} for pick in (*_picks(offers), {}))
        compositions = (compose_tiny(pick, host=host) for pick in picks)
        plan = next(found.plan for found in compositions if found.plan is not None)
        assert self.plugin in {item.name for item in plan.plugins}
        (tmp_path / "plan.json").write_text(plan.to_json(), encoding="utf-8")
        assert ask_child("replayed_digest", str(tmp_path), self.plugin) == plan.digest


def _picks(offers: list[Offer]) -> Iterator[dict[str, Any]]:
    """Every offer that a run can pick, without and with each of its presets."""
    for offer in offers:
        for name in (offer.name, *(f"{offer.name}:{preset.name}" for preset in offer.provider.presets)):
            if offer.slot in SINGLE_SLOTS:
                yield {offer.slot: name}
            elif offer.slot in MANY_SLOTS:
                yield {offer.slot: {offer.name: {"name": name}}}
