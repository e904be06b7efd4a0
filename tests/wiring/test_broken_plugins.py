"""A broken plugin gives one readable paragraph: what, which plugin and distribution, what to do."""

from __future__ import annotations

import pytest

from xtuner_core import Host
from xtuner_core.contract_version import OldContractWarning, check_contract
from xtuner_core.discovery import Candidate, discover
from xtuner_core.errors import ContractError, PluginError, UnknownName

HEADER = """
from xtuner_core.api import *
@hookimpl
def xtuner_plugin():
    return PluginInfo(contract="1.0", summary="made for a test")
"""
LOSS = 'LossProvider(name="odd", factory="math:floor", summary="-")'


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param(
            "raise RuntimeError('no licence server\\nat all')",
            "plugin 'odd' (stranger-odd) cannot be imported: stranger_odd.plugin raises RuntimeError: "
            "no licence server; update or uninstall stranger-odd",
            id="raises at import",
        ),
        pytest.param(
            "import sys\nsys.exit(7)",
            "plugin 'odd' (stranger-odd) cannot be imported: stranger_odd.plugin raises SystemExit: 7; "
            "update or uninstall stranger-odd",
            id="leaves the process at import",
        ),
        pytest.param(
            "from xtuner_core.api import HologramProvider",
            "plugin 'odd' (stranger-odd) cannot be imported: stranger_odd.plugin raises ImportError: cannot import "
            "name 'HologramProvider' from 'xtuner_core.api' ({api}); update or uninstall stranger-odd, "
            "or update xtuner-core: it is written for another version of it",
            id="wants what this core has not",
        ),
        pytest.param(
            HEADER + "@hookimpl\ndef xtuner_configure(conf):\n    return []",
            "plugin 'odd' (stranger-odd 1.0) breaks the contract in xtuner_configure(conf): Argument(s) {'conf'} are "
            "declared in the hookimpl but can not be found in the hookspec; update or uninstall stranger-odd",
            id="wrong hook argument",
        ),
        pytest.param(
            HEADER + "@hookimpl\ndef xtuner_modells():\n    return []",
            "plugin 'odd' (stranger-odd 1.0) implements xtuner_modells, which is no hook of this contract; "
            "did its author mean xtuner_models? update or uninstall stranger-odd",
            id="unknown hook",
        ),
        pytest.param(
            HEADER + "def xtuner_models():\n    return []",
            "plugin 'odd' (stranger-odd 1.0) has a function xtuner_models that is no hook implementation; "
            "its author has to mark it with @hookimpl; update or uninstall stranger-odd",
            id="hook without its mark",
        ),
        pytest.param(
            "",
            "plugin 'odd' (stranger-odd 1.0) does not say what it is: it has no xtuner_plugin hook that returns a "
            "PluginInfo; update or uninstall stranger-odd",
            id="says not what it is",
        ),
        pytest.param(
            HEADER.replace("1.0", "soon"),
            "plugin 'odd' (stranger-odd 1.0) states the contract version 'soon', which is not 'major.minor'; "
            "this core speaks 1.0",
            id="contract version that is none",
        ),
        pytest.param(
            HEADER.replace("1.0", "0.9"),
            "plugin 'odd' (stranger-odd 1.0) is written for contract 0.9, this core speaks 1.0; "
            "pip install --upgrade stranger-odd",
            id="contract one older",
        ),
        pytest.param(
            HEADER.replace("1.0", "1.1"),
            "plugin 'odd' (stranger-odd 1.0) is written for contract 1.1, this core speaks 1.0; "
            "pip install --upgrade xtuner-core",
            id="contract one minor version newer",
        ),
        pytest.param(
            HEADER.replace("1.0", "2.0"),
            "plugin 'odd' (stranger-odd 1.0) is written for contract 2.0, this core speaks 1.0; "
            "pip install --upgrade xtuner-core",
            id="contract one major version newer",
        ),
        pytest.param(
            HEADER + f"@hookimpl\ndef xtuner_losses():\n    return {LOSS}",
            "plugin 'odd' (stranger-odd 1.0) returns LossProvider(slot='loss', name='odd', factory='math:floor', "
            "config=None, presets=(), provides=frozenset(), requires=frozenset(), lacks={}, summary='-', "
            "depends_on_split=None) from xtuner_losses, not an iterable of records; update or uninstall stranger-odd",
            id="one record where several are wanted",
        ),
        pytest.param(
            HEADER + "@hookimpl\ndef xtuner_losses():\n    return ['odd']",
            "plugin 'odd' (stranger-odd 1.0) offers 'odd', which is no Provider; update or uninstall stranger-odd",
            id="no record",
        ),
        pytest.param(
            HEADER + "@hookimpl\ndef xtuner_losses():\n    yield 1 / 0",
            "plugin 'odd' (stranger-odd 1.0) fails in xtuner_losses: ZeroDivisionError: division by zero; "
            "update or uninstall stranger-odd",
            id="hook that raises",
        ),
        pytest.param(
            HEADER + f"@hookimpl\ndef xtuner_losses():\n    return [{LOSS.replace('odd', 'Odd-One')}]",
            "plugin 'odd' (stranger-odd 1.0) offers loss 'Odd-One', but its name 'Odd-One' is not lower snake case; "
            "update or uninstall stranger-odd",
            id="name that no key can bear",
        ),
        pytest.param(
            HEADER + "@hookimpl\ndef xtuner_providers():\n"
            "    return [Provider(slot='algorithm', name='odd', factory='math:floor', summary='-')]",
            "plugin 'odd' (stranger-odd 1.0) offers algorithm 'odd', but its record is a Provider, "
            "no AlgorithmProvider; update or uninstall stranger-odd",
            id="record of another slot",
        ),
        pytest.param(
            HEADER.replace('summary="made for a test"', 'summary="-", capabilities={"even.more": "-"}'),
            "plugin 'odd' (stranger-odd 1.0) declares the capability 'even.more', which does not begin with its name; "
            "update or uninstall stranger-odd",
            id="capability that is not its own",
        ),
        pytest.param(
            HEADER.replace('summary="made for a test"', 'summary="-", requires_plugins=("evn",)'),
            "plugin 'odd' (stranger-odd 1.0) requires the plugin 'evn': no plugin 'evn' is installed; "
            "pip install xtuner-core-evn, if it exists",
            id="requires a plugin that is not there",
        ),
    ],
)
def test_one_paragraph_names_plugin_distribution_and_way_out(install, problem, source, message):
    import xtuner_core.api

    install("odd", source, offers=["loss/odd"])
    assert problem(plugins=["odd"]) == message.replace("{api}", str(xtuner_core.api.__file__))


@pytest.mark.parametrize(
    ("fields", "source", "message"),
    [
        pytest.param(
            'requires=frozenset({"comm.al_to_all"})',
            "",
            "loss 'odd' of plugin 'odd' (stranger-odd 1.0) names the capability 'comm.al_to_all', which is not known; "
            "write 'comm.all_to_all'",
            id="unknown requirement",
        ),
        pytest.param(
            'config="stranger_odd.plugin:Missing"',
            "",
            "loss=odd (--plugins odd): plugin 'odd' (stranger-odd) names 'stranger_odd.plugin:Missing', but "
            "stranger_odd.plugin has no 'Missing'; update or uninstall stranger-odd",
            id="configuration that is not there",
        ),
        pytest.param(
            'config="stranger_odd.plugin:Config"',
            "class Config:\n    pass",
            "loss=odd (--plugins odd): plugin 'odd' (stranger-odd 1.0) gives 'stranger_odd.plugin:Config' as the "
            "configuration of loss 'odd' of plugin 'odd' (stranger-odd 1.0), which is no dataclass; "
            "update or uninstall stranger-odd",
            id="configuration that is no dataclass",
        ),
    ],
)
def test_an_offer_that_cannot_be_used_names_its_plugin(install, problem, fields, source, message):
    install.offer("odd", "loss", fields, source=source)
    assert problem(plugins=["odd"]) == message


def test_a_requirement_that_nothing_chosen_provides_names_what_would(install, refused):
    install.offer("odd", "loss", 'requires=frozenset({"device.streams"})')
    (found,) = refused(plugins=["odd"], overrides=["device=cpu"]).problems
    assert str(found) == (
        "loss 'odd' of plugin 'odd' (stranger-odd 1.0) (chosen by loss) requires 'device.streams', but device 'cpu' of "
        "plugin 'cpu' (xtuner-core 0.1.0) (chosen by device) lacks it: a CPU has no work queues beside the program; "
        "choose an accelerator"
    )
    assert found.plugins == ("odd", "cpu")


def test_a_requirement_that_nobody_provides_says_so(install, problem):
    install.offer("odd", "loss", 'requires=frozenset({"rollout.logprobs"})')
    assert problem(plugins=["odd"]) == (
        "loss 'odd' of plugin 'odd' (stranger-odd 1.0) (chosen by loss) requires 'rollout.logprobs', "
        "which nothing that was chosen provides; no active plugin provides it"
    )


# ── what is missing ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_plugin_that_requires_a_missing_package_says_which(install, problem):
    install("needy", "import zlib_of_the_future", requires=["zlib-of-the-future>=2"])
    assert problem(plugins=["needy"]) == (
        "plugin 'needy' (stranger-needy) cannot be imported: stranger_needy.plugin raises ModuleNotFoundError: "
        "No module named 'zlib_of_the_future'; it requires zlib-of-the-future, not installed; "
        "install the package that provides 'zlib_of_the_future', or update or uninstall stranger-needy"
    )


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ("gone_package.plugin", "its package 'gone_package' is not there"),
        ("not a module", "its entry point 'not a module' names no module"),
        ("module.with:attribute", "its entry point 'module.with:attribute' names no module"),
    ],
)
def test_an_entry_point_that_leads_nowhere_is_a_fault_of_its_candidate(install, problem, entry, fault):
    install.describe("stranger-ghost", ["[xtuner_core.plugins]", f"ghost = {entry}"])
    assert discover().candidates["ghost"].fault == fault
    message = problem(plugins=["ghost"])
    assert "plugin 'ghost' (stranger-ghost)" in message
    assert fault in message


def test_a_distribution_with_damaged_metadata_disturbs_nobody(install, chosen):
    folder = install.describe("stranger-torn", ["[xtuner_core.plugins]", "torn = torn.plugin"])
    (folder / "METADATA").write_text("")
    (folder / "direct_url.json").write_text("{")
    assert chosen() == chosen()
    assert discover().candidates["torn"].version == "unknown"


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("odd", "plugin 'odd' (stranger-odd 1.0) has no recipe 'odd' at stranger_odd:odd.yaml: "),
        ("even", "algorithm 'odd' of plugin 'odd' (stranger-odd 1.0) starts from the recipe 'even', which its plugin"),
    ],
)
def test_a_recipe_that_is_not_there_is_its_plugins_fault(install, problem, recipe, message):
    shipped = 'summary="-", recipes=(Recipe(name="odd", file="stranger_odd:odd.yaml", summary="-"),)'
    text = HEADER.replace('summary="made for a test"', shipped)
    offer = f'AlgorithmProvider(name="odd", factory="math:floor", loss="cross_entropy", recipe="{recipe}", summary="-")'
    install("odd", f"{text}@hookimpl\ndef xtuner_algorithms():\n    return [{offer}]")
    assert problem(plugins=["odd"]).startswith(message)


# ── what stays ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_several_broken_plugins_are_told_at_once(install, refused):
    install("north", "raise RuntimeError('cold')")
    install("south", "raise RuntimeError('warm')")
    messages = [found.message for found in refused(plugins=["north", "south"]).problems]
    assert ["RuntimeError: cold" in messages[0], "RuntimeError: warm" in messages[1]] == [True, True]


def test_a_failed_activation_leaves_the_host_as_it_was(install):
    install("helper", HEADER + f"@hookimpl\ndef xtuner_losses():\n    return [{LOSS.replace('odd', 'help')}]")
    text = HEADER.replace('summary="made for a test"', 'summary="-", requires_plugins=("helper", "gone")')
    install("odd", f"{text}@hookimpl\ndef xtuner_losses():\n    return [{LOSS}]")
    host = Host()
    before = (set(host.active), set(host.infos), len(host.registry.of_slot("loss")))
    with pytest.raises(UnknownName, match="requires the plugin 'gone'"):
        host.activate("odd")
    assert (set(host.active), set(host.infos), len(host.registry.of_slot("loss"))) == before
    host.activate("helper")
    assert host.registry.find("loss", "help") is not None


def test_an_object_cannot_take_the_name_of_an_active_plugin():
    with pytest.raises(PluginError, match="the name 'cpu' of a plugin passed as an object is that of plugin 'cpu'"):
        Host(objects={"cpu": object()})


def test_a_hook_that_answers_with_the_wrong_record_is_told_when_it_is_called(install, problem):
    install("odd", HEADER + "@hookimpl\ndef xtuner_configure(config):\n    return ['seed=1']")
    assert problem(plugins=["odd"]) == (
        "plugin 'odd' (stranger-odd 1.0) returns ['seed=1'] from xtuner_configure, not an iterable of Patch; "
        "update or uninstall stranger-odd"
    )


def test_an_explanation_that_fails_is_passed_over(install):
    install("odd", HEADER + "@hookimpl\ndef xtuner_explain(error, plan):\n    return 1 / 0")
    install("wise", HEADER + "@hookimpl\ndef xtuner_explain(error):\n    return [Hint(f'{error}: wait')]")
    hints = [hint.text for hint in Host(["odd", "wise"]).explain(ValueError("busy"), None)]
    assert hints[1] == "busy: wait"
    assert hints[0].startswith("(plugin 'odd' could not explain it:")


def test_a_plugin_one_minor_version_behind_works_with_a_warning():
    candidate = Candidate("old", "old.plugin", "stranger-old", "1.0", editable=False)
    with pytest.warns(OldContractWarning, match=r"is written for contract 1\.3, this core speaks 1\.4; .* until 1\.5"):
        check_contract("1.3", candidate, core=(1, 4))
    with pytest.raises(ContractError, match=r"is written for contract 1\.2"):
        check_contract("1.2", candidate, core=(1, 4))
