"""`plugins list`, `plugins show` and `plugins check`, with strangers' plugins that work and that do not."""

from __future__ import annotations

import json

import pytest

from xtuner_core import Host

MODEL = """
from dataclasses import dataclass
@dataclass
class Config:
    width: int = 3
    '''How wide.'''
def build(config): return None
@hookimpl
def xtuner_models():
    return [ModelProvider(name='{name}', factory='{module}:build', config='{module}:Config', summary='a model',
        hf_model_types=('{name}',), presets=(Preset(name='small', alias='{name}-1', values={values}),))]
"""


def listed(out: str) -> dict[str, list[dict]]:
    rows: dict[str, list[dict]] = {}
    for row in json.loads(out):
        rows.setdefault(row["name"], []).append(row)
    return rows


def test_list_works_with_missing_modules_and_clashes(cli, site, source):
    site.add("stranger-gone", plugins={"gone": "no_such_package.plugin"})
    site.add("stranger-one", plugins={"twin": "twin_one"}, modules={"twin_one": source()})
    site.add("stranger-two", plugins={"twin": "twin_two"}, modules={"twin_two": "raise RuntimeError"})
    site.add(
        "stranger-fine", plugins={"fine": "fine_one"}, offers={"model/fine": "fine_one"}, modules={"fine_one": source()}
    )

    result = cli("plugins", "list", "--json")

    rows = listed(result.out)
    assert result.code == 0
    assert rows["gone"][0]["state"] == "broken"
    assert "no_such_package" in rows["gone"][0]["fault"]
    assert [row["distribution"] for row in rows["twin"]] == ["stranger-one", "stranger-two"]
    assert "stranger-two" in rows["twin"][0]["fault"]
    assert rows["fine"][0] | {"editable": False} == {
        "name": "fine",
        "distribution": "stranger-fine",
        "version": "1.2",
        "editable": False,
        "module": "fine_one",
        "offers": ["model/fine"],
        "state": "installed",
        "fault": "",
    }
    assert rows["pretrain"][0]["state"] == "active"


def test_list_calls_active_what_the_host_activates_by_itself(cli):
    rows = listed(cli("plugins", "list", "--json").out)

    assert {name for name, (row, *_) in rows.items() if row["state"] == "active"} == set(Host().active)


def test_list_for_people_has_a_line_for_each_plugin(cli, site):
    site.add("stranger-gone", plugins={"gone": "no_such_package.plugin"})

    lines = cli("plugins", "list").out.splitlines()

    assert lines[0].split() == ["NAME", "DISTRIBUTION", "VERSION", "OFFERS", "STATE"]
    assert any(line.split() == ["cpu", "xtuner-core", "0.1.0", "device/cpu", "active"] for line in lines)
    assert any(
        line.startswith("gone ") and "broken: its package 'no_such_package' is not there" in line for line in lines
    )


def test_show_gives_fields_with_types_defaults_and_docstrings(cli):
    offer = json.loads(cli("plugins", "show", "qwen3_moe", "--json").out)["offers"][0]

    fields = {field["name"]: field for field in offer["config"]}
    assert (offer["slot"], offer["name"], offer["hf_model_types"]) == ("model", "qwen3_moe", ["qwen3_moe"])
    assert "qwen3-30b-a3b" in [preset["alias"] for preset in offer["presets"]]
    assert fields["tie_word_embeddings"]["type"] == "bool"
    assert fields["top_k"]["default"] == 2
    assert "each token meets" in fields["top_k"]["doc"]


def test_show_for_people_says_what_to_write_and_what_is_lacking(cli):
    assert "preset model=qwen3_moe:30b-a3b or model=qwen3-30b-a3b" in cli("plugins", "show", "qwen3_moe").out
    assert "lacks dtype.fp8: PyTorch multiplies no 8-bit floats on a CPU" in cli("plugins", "show", "cpu").out


def test_show_of_an_unknown_plugin_names_the_nearest(cli):
    result = cli("plugins", "show", "qwen3moe")

    assert result.code == 2
    assert result.err == "error: no plugin 'qwen3moe' is installed\nfix: write 'qwen3_moe'\n"


@pytest.fixture
def strangers(site, source):
    """One plugin that keeps the contract, and some that do not."""
    good = source(MODEL.format(name="good", module="check_good", values="{'width': 4}"))
    liar = source(MODEL.format(name="liar", module="check_liar", values="{'wdth': 4}"))
    site.add(
        "stranger-good",
        plugins={"good": "check_good"},
        offers={"model/good": "check_good", "hf/good": "check_good"},
        modules={"check_good": "print('a plugin that talks')\n" + good},
    )
    site.add(
        "stranger-liar",
        plugins={"liar": "check_liar"},
        offers={"model/other": "check_liar", "loss/stray": "elsewhere"},
        modules={"check_liar": liar.replace("check_liar:build", "check_liar:bild")},
    )
    site.add("stranger-crash", plugins={"crash": "check_crash"}, modules={"check_crash": "import os; os._exit(7)"})
    site.add("stranger-raise", plugins={"raiser": "check_raise"}, modules={"check_raise": "1 / 0"})


def test_check_tells_each_fault_of_each_plugin_and_passes_the_good_ones(cli, strangers):
    result = cli("plugins", "check", "good", "liar", "crash", "raiser", "absent", "--json")

    verdicts = {verdict["name"]: verdict["problems"] for verdict in json.loads(result.out)}
    assert result.code == 3
    assert verdicts["good"] == []
    assert verdicts["crash"] == ["its process ended with exit code 7"]
    assert "check_raise raises ZeroDivisionError" in verdicts["raiser"][0]
    assert "no plugin 'absent' is installed" in verdicts["absent"][0]
    told = "\n".join(verdicts["liar"])
    assert "offers model/liar, which its distribution's offers index does not list" in told
    assert "is listed for model/other in its distribution's offers index, but does not offer it" in told
    assert "has loss/stray = 'elsewhere' in its distribution's offers index, which is no plugin's module" in told
    assert "preset 'small', sets wdth, which Config does not have" in told
    assert "check_liar has no 'bild'" in told


def test_check_for_people_is_a_paragraph_a_plugin(cli, strangers):
    result = cli("plugins", "check", "good")

    assert result.code == 0
    assert result.out == "good (stranger-good 1.2): ok\n"
