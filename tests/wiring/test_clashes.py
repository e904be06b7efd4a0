"""Two plugins for one name, and an offers index that does not say what its plugin offers."""

from __future__ import annotations

import pytest

from xtuner_core.discovery import discover

HEADER = """
from xtuner_core.api import *
@hookimpl
def xtuner_plugin():
    return PluginInfo(contract="1.0", summary="made for a test")
"""
LOSS = 'LossProvider(name="odd", factory="math:floor", summary="-")'


def test_a_plugin_name_that_two_distributions_claim_is_refused_with_both(install, problem):
    install("twin", HEADER, distribution="north", version="1.5")
    install("twin", HEADER, distribution="south", version="2.5")
    assert problem(plugins=["twin"]) == (
        "the plugin name 'twin' is claimed by north 1.5 and south 2.5; uninstall one of them"
    )


def test_an_offer_of_a_plugin_whose_name_is_claimed_twice_leads_to_the_clash(install, problem):
    install("twin", HEADER, distribution="north", offers=["loss/twin"])
    install("twin", HEADER, distribution="south")
    assert problem(overrides=["loss=twin"]) == (
        "loss=twin (command line): the plugin name 'twin' is claimed by north 1.0 and south 1.0; uninstall one of them"
    )


def test_a_stranger_that_claims_a_built_in_name_disturbs_no_run(install, chosen):
    before = chosen()
    install("cpu", "raise RuntimeError", distribution="usurper")
    assert chosen() == before
    assert [candidate.distribution for candidate in discover().clashes["cpu"]] == ["usurper", "xtuner-core"]


def test_two_offers_of_one_name_are_refused_with_both(install, problem):
    offer = LOSS.replace("odd", "same")
    for name in ("north", "south"):
        install(name, HEADER + f"@hookimpl\ndef xtuner_losses():\n    return [{offer}]")
    recipe = {"plugins": ["north", "south"], "loss": "same", "model": "qwen3_moe:tiny", "algorithm": "pretrain"}
    message = problem(recipe | {"dataset": "kjv"})
    assert message == (
        "loss 'same' is offered by plugin 'north' (stranger-north 1.0) and plugin 'south' (stranger-south 1.0); "
        "leave one of them out of --plugins, or uninstall stranger-south"
    )


def test_an_offer_that_bears_a_built_in_name_is_refused(install, problem):
    install("rival", HEADER + f"@hookimpl\ndef xtuner_losses():\n    return [{LOSS.replace('odd', 'cross_entropy')}]")
    message = problem(plugins=["rival"])
    assert "loss 'cross_entropy' is offered by plugin 'cross_entropy' (xtuner-core" in message
    assert "and plugin 'rival' (stranger-rival 1.0)" in message


def test_two_active_readers_of_one_model_type_are_refused(install, problem):
    install.offer("rival", "model", 'hf_model_types=("qwen3_moe",)')
    message = problem(plugins=["rival", "qwen3_moe"], overrides=["model=rival"])
    assert message.startswith("reading model_type 'qwen3_moe' is offered by plugin 'rival'")


# ── an offers index that lies ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("active", [False, True])
def test_an_index_that_lists_what_its_plugin_does_not_offer_is_told(install, problem, active):
    install("liar", HEADER, offers=["model/unicorn"])
    assert problem(plugins=["liar"] * active, overrides=["model=unicorn"]) == (
        "model=unicorn (command line): plugin 'liar' (stranger-liar 1.0) lists model/unicorn in its offers index, "
        "but does not offer it; update or uninstall stranger-liar"
    )


def test_an_index_that_claims_a_model_type_which_its_plugin_does_not_read_is_told(install, problem, tmp_path):
    install("liar", HEADER, offers=["hf/unicorn"])
    (tmp_path / "config.json").write_text('{"model_type": "unicorn"}')
    assert problem(overrides=[f"model={tmp_path}"]).endswith(
        "plugin 'liar' (stranger-liar 1.0) lists hf/unicorn in its offers index, but does not offer it; "
        "update or uninstall stranger-liar"
    )
