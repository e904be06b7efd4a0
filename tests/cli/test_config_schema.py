"""`config schema` describes exactly the recipes that the wiring takes, so that an editor finds the same faults."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest
import yaml
from jsonschema import Draft202012Validator

from xtuner_core import Host, compose
from xtuner_core.config.describe import field_docs, nested_dataclasses
from xtuner_core.config.recipe_schema import recipe_schema
from xtuner_core.config.root import CoreConfig


@pytest.fixture(scope="module")
def host() -> Host:
    return Host(["qwen3_moe"])


@pytest.fixture(scope="module")
def validator(host):
    schema = recipe_schema(host)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_the_command_writes_the_schema_of_the_plugins_that_it_names(cli):
    bare, named = cli("config", "schema"), cli("config", "schema", "--plugins", "qwen3_moe")
    assert bare.code == named.code == 0
    assert "model.qwen3_moe" not in json.loads(bare.out)["$defs"]
    assert "model.qwen3_moe" in json.loads(named.out)["$defs"]


def test_a_recipe_that_is_shipped_is_valid(validator):
    text = files("xtuner_core.builtin.pretrain").joinpath("recipes/pretrain.yaml").read_text()
    recipe = yaml.safe_load(text.replace("5.0e-3", "0.005"))
    assert not list(validator.iter_errors(recipe))


GOOD = [
    {"model": "qwen3_moe:tiny", "seed": 3},
    {"model": {"name": "qwen3_moe:tiny", "num_layers": 2}},
    {"model": {"num_layers": 2}},
    {"model": "./some/folder", "seed": "${algorithm.steps}"},
    {"optimizer": {"name": "adamw", "learning_rate": 0.001}, "precision": "fp32"},
    {"observer": {"console": {}, "file": "jsonl"}, "parameters": [{"role": "embed", "frozen": True}]},
    {"optimizer": {"name": "a_strangers", "anything": 1}, "plugins": ["a_stranger"]},
]
BAD = [
    {"sed": 3},
    {"seed": "three"},
    {"model": {"name": "qwen3_moe", "num_layer": 2}},
    {"optimizer": {"name": "adamw", "learning_rate": "fast"}},
    {"observer": {"console": {"evry": 3}}},
    {"parameters": [{"role": "embed", "frzen": True}]},
    {"data": {"broken": "ignore"}},
]


@pytest.mark.parametrize("recipe", GOOD, ids=str)
def test_what_may_stand_in_a_recipe_is_valid(validator, recipe):
    assert not list(validator.iter_errors(recipe))


@pytest.mark.parametrize("recipe", BAD, ids=str)
def test_what_the_wiring_refuses_is_invalid(validator, host, recipe):
    assert list(validator.iter_errors(recipe))
    assert compose({"model": "qwen3_moe:tiny", "dataset": "kjv", "algorithm": "pretrain", **recipe}, host=host).problems


def test_every_key_of_the_core_carries_its_docstring(validator):
    schema = validator.schema
    sections = [schema, *(schema["$defs"][f"core:{kind.__name__}"] for kind in nested_dataclasses(CoreConfig))]
    docs = [field_docs(kind) for kind in (CoreConfig, *nested_dataclasses(CoreConfig))]
    for section, expected in zip(sections, docs, strict=True):
        assert {name: section["properties"][name].get("description") for name in expected} == expected
