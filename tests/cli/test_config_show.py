"""`config show`: each value with its origin."""

from __future__ import annotations

import json
from pathlib import Path


def test_every_value_is_shown_with_where_it_came_from(cli, tmp_path: Path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("model:\n  name: qwen3_moe:tiny\n  num_layers: 2\ndataset: kjv\nalgorithm: pretrain\n")

    result = cli("config", "show", str(recipe), "seed=7", "--json")

    rows = {row["key"]: (row["value"], row["origin"]) for row in json.loads(result.out)}
    assert result.code == 0
    assert rows["model"] == ("qwen3_moe:tiny", f"{recipe}:2")
    assert rows["model.num_layers"] == (2, f"{recipe}:3")
    assert rows["model.hidden_size"] == (192, "preset tiny of qwen3_moe")
    assert rows["model.attention_bias"] == (False, "default")
    assert rows["seed"] == (7, "command line")
    assert rows["schedule.warmup_fraction"][1].startswith("recipe pretrain:")


def test_naming_a_plugin_shows_as_the_origin_of_what_it_fills(cli, site, source):
    body = """
from dataclasses import dataclass
@dataclass
class Config:
    width: int = 3
@hookimpl
def xtuner_models(): return [ModelProvider(name='shown', factory='shown_one:Config', config=Config, summary='a model')]
"""
    site.add("stranger-shown", plugins={"shown": "shown_one"}, modules={"shown_one": source(body)})

    lines = cli("config", "show", "--plugins", "shown").out.splitlines()

    assert lines[0].split() == ["KEY", "VALUE", "ORIGIN"]
    assert ["model", "shown", "--plugins", "shown"] in [line.split() for line in lines]
    assert ["model.width", "3", "default"] in [line.split() for line in lines]


def test_the_recipe_may_stand_anywhere_among_the_values(cli):
    first = cli("config", "show", "pretrain_demo", "seed=7", "--json")
    last = cli("config", "show", "seed=7", "pretrain_demo", "--json")

    assert first.code == 0
    assert first.out == last.out
