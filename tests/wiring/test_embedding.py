"""What larger platforms embed: hosts side by side, plugins as objects, the catalog and problems as data."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from xtuner_core import Host, compose
from xtuner_core.api import LossProvider, PluginInfo, hookimpl
from xtuner_core.loading import load
from xtuner_core.records import SLOTS


class Loss:
    """A plugin as an object."""

    def __init__(self, name: str) -> None:
        self.name = name

    @hookimpl
    def xtuner_plugin(self):
        return PluginInfo(contract="1.0", summary="an object")

    @hookimpl
    def xtuner_losses(self):
        return [LossProvider(name=self.name, factory="math:floor", summary="a platform's own")]


# ── hosts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_two_hosts_in_one_process_do_not_see_each_others_plugins(strangers):
    first, second = Host(["bigram"], objects={"left": Loss("left")}), Host(["focal"], objects={"right": Loss("right")})
    names = ("left", "right", "focal")
    assert [first.registry.find("loss", name) is not None for name in names] == [True, False, False]
    assert [second.registry.find("loss", name) is not None for name in names] == [False, True, True]
    assert first.registry.find("model", "bigram") is not None
    assert second.registry.find("model", "bigram") is None


def test_composing_on_one_host_activates_nothing_on_another(strangers):
    first, second = Host(), Host()
    compose(plugins=["bigram"], host=first).require()
    assert "bigram" in first.active
    assert "bigram" not in second.active


def test_two_plans_from_one_host_are_independent_but_for_what_is_active(strangers):
    host = Host()
    first = compose(plugins=["bigram"], host=host).require()
    second = compose(host=host).require()
    assert (first.pick("model").name, second.pick("model").name) == ("bigram", "qwen3_moe")
    assert first.digest == compose(plugins=["bigram"], host=Host()).require().digest


def test_one_module_serves_as_an_object_in_two_hosts():
    plugin = Loss("mine")
    for host in (Host(objects={"mine": plugin}), Host(objects={"ours": plugin})):
        assert host.registry.find("loss", "mine") is not None


def test_recipes_and_overrides_may_be_mappings():
    recipe = {"model": "qwen3_moe:tiny", "algorithm": {"name": "pretrain", "steps": 2}, "dataset": "kjv"}
    plan = compose(recipe, overrides={"seed": 4, "algorithm": {"steps": 3}}).require()
    assert (plan.config["seed"], plan.config["algorithm"]["steps"]) == (4, 3)


def test_composing_leaves_what_it_was_given_as_it_was():
    recipe = {"model": {"name": "qwen3_moe:tiny"}, "plugins": ["qwen3_moe"], "algorithm": "pretrain", "dataset": "kjv"}
    before = json.dumps(recipe)
    compose(recipe).require()
    assert json.dumps(recipe) == before


# ── problems as data ───────────────────────────────────────────────────────────────────────────────────────────────


def test_problems_are_data_with_a_code_a_key_and_the_plugins_concerned(strangers):
    problems = [item.as_data() for item in compose(plugins=["bigram", "qwen3_moe"]).problems]
    assert problems == [
        {
            "message": "the named plugins 'bigram' and 'qwen3_moe' both offer a model",
            "fix": "write model=bigram or model=qwen3_moe",
            "code": "contested",
            "key": "model",
            "plugins": ("bigram", "qwen3_moe"),
        }
    ]


# ── the catalog ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def host(strangers) -> Host:
    return Host(["qwen3_moe", "bigram", "focal", "abacus", "parrot", "rewind"])


def test_the_catalog_is_json_and_holds_every_offer_of_the_active_plugins(host):
    catalog = host.catalog()
    assert json.loads(json.dumps(catalog)) == json.loads(json.dumps(catalog, sort_keys=True))
    offered = {(offer["slot"], offer["name"]) for offer in catalog["offers"]}
    assert {("model", "bigram"), ("parallelism", "rewind"), ("device", "abacus"), ("loss", "focal")} <= offered
    assert len(offered) == len(catalog["offers"])
    assert offered == {(offer.slot, offer.name) for slot in SLOTS for offer in host.registry.of_slot(slot)}


def test_the_catalog_lists_what_is_installed_and_inactive_with_what_it_would_offer(strangers):
    installed = {item["name"]: item for item in Host().catalog()["installed"]}
    assert installed["bigram"]["active"] is False
    assert installed["bigram"]["offers"] == ["hf/bigram", "model/bigram"]
    assert installed["cpu"]["active"] is True


def test_every_schema_of_the_catalog_takes_the_defaults_of_its_configuration(host):
    from pydantic import TypeAdapter

    with_schema = [offer for offer in host.catalog()["offers"] if offer["config"] is not None]
    assert len(with_schema) > 8
    for data in with_schema:
        cls = host.config_class(host.registry.find(data["slot"], data["name"]))
        adapter = TypeAdapter(cls)
        defaults = adapter.dump_python(cls(), mode="json")
        _check(defaults, data["config"], data["config"].get("$defs", {}), data["name"])
        adapter.validate_python(defaults)


def test_every_field_of_every_schema_is_described(host):
    for data in host.catalog()["offers"]:
        for name, part in (data["config"] or {}).get("properties", {}).items():
            assert part.get("description"), f"{data['slot']} {data['name']}: {name}"


def test_a_broken_configuration_spoils_no_catalog(install):
    install.offer("odd", "loss", 'config="stranger_odd.plugin:Missing"')
    offers = {offer["name"]: offer for offer in Host(["odd"]).catalog()["offers"]}
    assert offers["odd"]["config"] is None
    assert "has no 'Missing'" in offers["odd"]["fault"]
    assert offers["adamw"]["fault"] == ""


def test_every_factory_and_probe_of_the_built_in_offers_is_there():
    host = Host(["qwen3_moe"])
    for slot in SLOTS:
        for offer in host.registry.of_slot(slot):
            reference = {"plugin": offer.plugin, "distribution": offer.distribution}
            assert load(offer.provider.factory, **reference) is not None
            if slot == "device":
                assert load(offer.provider.probe, **reference)().count >= 0


_TYPES: dict[str, type | tuple[type, ...]] = {
    "integer": int,
    "number": (int, float),
    "string": str,
    "boolean": bool,
    "array": list,
    "object": Mapping,
    "null": type(None),
}


def _check(value: object, schema: Mapping[str, object], definitions: Mapping[str, object], where: str) -> None:
    """The parts of JSON Schema that configuration dataclasses come to."""
    if "$ref" in schema:
        schema = definitions[str(schema["$ref"]).rpartition("/")[2]]  # type: ignore[assignment]
    if "anyOf" in schema:
        choices = [choice for choice in schema["anyOf"] if _fits(value, choice)]  # type: ignore[attr-defined]
        assert choices, f"{where}: {value!r} fits none of {schema}"
        return
    assert _fits(value, schema), f"{where}: {value!r} is no {schema}"
    if isinstance(value, Mapping) and "properties" in schema:
        properties: Mapping[str, Mapping[str, object]] = schema["properties"]  # type: ignore[assignment]
        assert schema["additionalProperties"] is False
        for name, item in value.items():
            _check(item, properties[name], definitions, f"{where}.{name}")


def _fits(value: object, schema: Mapping[str, object]) -> bool:
    if "enum" in schema:
        return value in schema["enum"]  # type: ignore[operator]
    return "type" not in schema or isinstance(value, _TYPES[str(schema["type"])])
