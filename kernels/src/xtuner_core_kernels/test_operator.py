"""The two records: order of names does not matter, what is not stated has a default, importing stays light."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from xtuner_core_kernels.operator import Use


def test_uses_are_equal_whatever_the_order_of_their_names() -> None:
    first = Use.of("attention", "cpu", torch.float32, {"heads": 4, "head_dim": 8}, {"window": None, "causal": True})
    second = Use.of("attention", "cpu", torch.float32, {"head_dim": 8, "heads": 4}, {"causal": True, "window": None})
    assert first == second
    assert hash(first) == hash(second)
    assert first.sizes == (("head_dim", 8), ("heads", 4))


def test_sizes_and_options_are_found_by_name() -> None:
    use = Use.of("attention", "cpu", torch.float32, {"heads": 4}, {"window": None})
    assert use.size("heads") == 4
    assert use.option("window", 3) is None
    assert use.option("sinks", False) is False
    with pytest.raises(KeyError, match="head_dim"):
        use.size("head_dim")


def test_importing_the_package_imports_no_torch() -> None:
    program = "import sys, xtuner_core_kernels; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
