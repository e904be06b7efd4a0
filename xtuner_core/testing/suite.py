"""What the suites have in common: a plugin, one of its offers, a host that holds it, configurations as cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pytest
import torch

from xtuner_core.host import Host
from xtuner_core.parts import Parts
from xtuner_core.records import MANY_SLOTS
from xtuner_core.registry import Offer
from xtuner_core.testing.tiny_run import compose_tiny, tiny_host


class OfferSuite:
    """Base of the suites of one slot."""

    slot: ClassVar[str]
    plugin: ClassVar[str]
    """Name of the plugin, as installed."""
    offer: ClassVar[str] = ""
    """Name of what it offers; may be left out where it offers one thing in this slot."""
    configs: ClassVar[Sequence[Mapping[str, Any]]] = ({},)
    """Configurations to test, each as the values that differ from the defaults; `case` counts them."""
    objects: ClassVar[Mapping[str, object]] = {}
    """Plugins passed as objects; `plugin` may be one of them."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run what depends on a configuration once for each."""
        if "case" in metafunc.fixturenames:
            metafunc.parametrize("case", range(len(self.configs)), scope="class")

    @pytest.fixture(scope="class")
    @classmethod
    def host(cls) -> Host:
        """A host that holds the plugin, and the `tiny` one."""
        return tiny_host([] if cls.plugin in cls.objects else [cls.plugin], objects=cls.objects)

    @pytest.fixture(scope="class")
    @classmethod
    def offered(cls, host: Host) -> Offer:
        """The offer under test."""
        offers = [item for item in host.registry.of_slot(cls.slot) if item.plugin == cls.plugin]
        named = [item for item in offers if cls.offer in ("", item.name)]
        names = [item.name for item in offers]
        assert len(named) == 1, f"plugin {cls.plugin!r} offers the {cls.slot}s {names}; set `offer` to one of them"
        return named[0]

    @pytest.fixture(autouse=True)
    def _one_thread(self) -> Iterator[None]:
        """These tensors are too small for threads to do anything but wait for each other."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)

    @classmethod
    def parts(cls, host: Host, offered: Offer, case: int, **overrides: Any) -> Parts:
        """The parts of a tiny run that picks the offer with the configuration of `case`.

        :param overrides: of the run, by slot or setting.
        """
        composition = compose_tiny({cls.slot: cls._pick(offered, case), **overrides}, host=host)
        return Parts(composition.require(), host)

    @classmethod
    def _pick(cls, offered: Offer, case: int) -> Any:
        values = {"name": offered.name, **cls.configs[case]}
        return {offered.name: values} if cls.slot in MANY_SLOTS else values
