"""Which device a run takes, and what is said when nothing offers the one that was asked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Found:
    count: int
    reason: str = ""


def test_a_device_that_nothing_offers_is_refused_with_those_that_are_there(problem):
    assert problem(overrides=["device=npu"]) == (
        "device=npu (command line): no installed plugin offers the device 'npu'; "
        "did you mean 'cpu'?; installed are cpu, cuda; or install a plugin that offers 'npu'"
    )


def test_an_inactive_plugin_that_offers_the_device_is_activated_by_the_pick(chosen, install):
    install.offer("npu", "device", 'provides=frozenset({"dtype.fp32"})')
    assert chosen(overrides=["device=npu", "precision=fp32"])["device"] == "npu"


def test_a_broken_plugin_that_would_offer_the_device_is_named_with_its_distribution(problem, install):
    install("ascend", "import torch_npu_that_is_not_there", offers=["device/npu"])
    assert problem(overrides=["device=npu"]) == (
        "device=npu (command line): plugin 'ascend' (stranger-ascend) cannot be imported: "
        "stranger_ascend.plugin raises ModuleNotFoundError: No module named 'torch_npu_that_is_not_there'; "
        "install the package that provides 'torch_npu_that_is_not_there', or update or uninstall stranger-ascend"
    )


def test_two_installed_plugins_that_offer_the_device_have_to_be_told_apart(problem, install):
    install("ascend", "raise RuntimeError", offers=["device/npu"])
    install("rise", "raise RuntimeError", offers=["device/npu"])
    assert problem(overrides=["device=npu"]) == (
        "device=npu (command line): device 'npu' is offered by the installed plugins 'ascend' and 'rise'; "
        "write --plugins ascend or write --plugins rise"
    )


def test_auto_prefers_an_accelerator_that_is_here(chosen, install):
    _device(install, "npu", count=2)
    assert chosen(plugins=["npu"], overrides=["device=auto", "precision=fp32"])["device"] == "npu"


def test_auto_passes_over_an_accelerator_that_is_not_here(problem, install):
    _device(install, "npu", count=0)
    assert "plugin 'npu' is named, but this run takes nothing from it" in problem(
        plugins=["npu"], overrides=["device=auto"]
    )


def test_auto_leaves_the_choice_between_two_accelerators_to_the_user(problem, install):
    _device(install, "npu", count=1)
    _device(install, "tpu", count=1)
    message = problem(plugins=["npu", "tpu"], overrides=["device=auto"])
    assert "several accelerators are here" in message
    assert message.endswith("write device=npu or device=tpu")


def test_auto_notes_the_inactive_plugins_that_it_did_not_look_at(planned, install):
    install("npu", "raise RuntimeError", offers=["device/npu"])
    assert planned().notes == ("device=auto looked at active plugins only; installed, inactive: npu",)


def test_a_probe_that_fails_is_told_with_its_plugin(problem, install):
    source = "def probe():\n    raise OSError('no driver')\n"
    install("npu", _text("npu", source), offers=["device/npu"])
    message = problem(plugins=["npu"], overrides=["device=auto"])
    assert "plugin 'npu' (stranger-npu 1.0) cannot say whether its device is here: OSError: no driver" in message
    assert message.endswith("name the device that is wanted, device=NAME")


def test_a_precision_that_the_device_lacks_is_refused_with_both_and_the_way_out(problem, strangers):
    assert problem(plugins=["abacus"], overrides=["precision=bf16"]) == (
        "precision 'bf16' of plugin 'precision' (xtuner-core 0.1.0) (chosen by precision) requires 'dtype.bf16', but "
        "device 'abacus' of plugin 'abacus' (stranger-abacus 3.1) (chosen by device) lacks it: "
        "beads have no exponent; choose precision=fp32"
    )


def _device(install, name: str, *, count: int) -> None:
    source = f"class Found:\n    count = {count}\ndef probe():\n    return Found()\n"
    install(name, _text(name, source), offers=[f"device/{name}"])


def _text(name: str, source: str) -> str:
    return f"""
from xtuner_core.api import *
{source}
@hookimpl
def xtuner_plugin():
    return PluginInfo(contract="1.0", summary="made for a test")
@hookimpl
def xtuner_devices():
    return [DeviceProvider(name="{name}", factory="math:floor", probe="stranger_{name}.plugin:probe",
                           provides=frozenset({{"dtype.fp32"}}), summary="made for a test")]
"""
