"""The contract changes with its version alone."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
from pathlib import Path

import pytest

from xtuner_core import hookspecs
from xtuner_core.discovery import discover
from xtuner_core.host import CORE, Host

ROOT = Path(__file__).parents[2]
SNAPSHOT = Path(__file__).parent / "contract.json"


@pytest.fixture(scope="module")
def tool():
    """tools/contract.py."""
    spec = importlib.util.spec_from_file_location("tools_contract", ROOT / "tools" / "contract.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def written():
    return json.loads(SNAPSHOT.read_text(encoding="utf-8"))


def test_the_contract_is_that_of_the_snapshot(tool, written):
    found = tool.changes(written, tool.snapshot())
    assert not found, "raise CONTRACT, then run python tools/contract.py:\n" + "\n".join(found)


def test_the_snapshot_holds_every_hook_record_slot_and_contract(written):
    assert written["version"] == ".".join(map(str, hookspecs.CONTRACT))
    assert [name for name in vars(hookspecs) if name.startswith("xtuner_")] == list(written["hooks"])
    assert written["hooks"]["xtuner_check"] == "(plan: Plan, facts: DeviceFacts | None) -> Iterable[Problem]"
    assert written["records"]["Provider"]["requires"] == "frozenset[str] = []"
    assert written["contracts"]["loss"]["Loss"]["total"].startswith("(self, scores: TokenScores, batch: PackedBatch)")
    modules = {file.stem for file in (ROOT / "xtuner_core" / "contracts").glob("*.py")} - {"__init__"}
    assert written["contracts"].keys() == modules


@pytest.mark.parametrize(
    "path",
    [("hooks", "xtuner_check"), ("records", "Provider", "name"), ("contracts", "loss", "Loss", "total"), ("slots",)],
)
def test_a_change_without_a_new_version_is_refused_and_named(tool, written, path):
    changed = copy.deepcopy(written)
    part = changed
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = "something else"
    assert f"- {'.'.join(path)}: " in tool.refusal(written, changed)
    assert tool.refusal(written, changed | {"version": "9.9"}) == ""
    assert tool.refusal(written, written) == ""


def test_no_hook_can_be_taken_for_optional_by_its_arguments():
    for name in (name for name in vars(hookspecs) if name.startswith("xtuner_")):
        assert getattr(hookspecs, name).__defaults__ is None


def test_the_built_in_plugins_state_the_contract_of_this_core():
    host = Host()
    assert {host.infos[name].contract for name in host.discovery.of_distribution(CORE)} == {
        ".".join(map(str, hookspecs.CONTRACT))
    }


def test_the_offers_index_of_the_core_is_what_its_plugins_offer():
    host, found = Host(), discover()
    own = set(found.of_distribution(CORE))
    listed = {key for key, owners in found.index.items() if own & set(owners)}
    offers = [offer for name in own for offer in host.registry.of_plugin(name) if offer.slot != "operator"]
    suffixes = [suffix for offer in offers for suffix in getattr(offer.provider, "suffixes", ())]
    assert listed == {f"{offer.slot}/{offer.name}" for offer in offers} | {f"file/{name[1:]}" for name in suffixes}


def test_the_policy_says_where_deprecations_stand():
    policy = (ROOT / "docs" / "reference" / "contract-policy.md").read_text(encoding="utf-8")
    assert "xtuner_core/deprecated.py" in policy
    deprecated = ROOT / "xtuner_core" / "deprecated.py"
    assert not deprecated.exists() or re.search(r"^\w+ = ", deprecated.read_text(encoding="utf-8"), re.MULTILINE)
