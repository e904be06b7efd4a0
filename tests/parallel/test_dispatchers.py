"""The built-in dispatchers keep the contract, on two ranks and on four."""

from __future__ import annotations

import pytest

from xtuner_core.testing import DispatcherContract


class TestAllToAll(DispatcherContract):
    plugin, offer = "dispatchers", "all_to_all"


class TestNaive(DispatcherContract):
    plugin, offer = "dispatchers", "naive"


@pytest.mark.full
class TestAllToAllOnFour(DispatcherContract):
    plugin, offer, ranks = "dispatchers", "all_to_all", 4


@pytest.mark.full
class TestNaiveOnFour(DispatcherContract):
    plugin, offer, ranks = "dispatchers", "naive", 4
