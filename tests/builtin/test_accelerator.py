"""An accelerator gives what the CPU gives. `cuda` needs a GPU; the kit's imaginary one takes the same path here."""

from __future__ import annotations

import pytest

from xtuner_core import run
from xtuner_core.testing import DeviceContract, compose_tiny, imaginary, tiny_host

DEVICES = [pytest.param("cuda", marks=pytest.mark.gpu), "imaginary"]


@pytest.mark.gpu
class TestCuda(DeviceContract):
    plugin = "cuda"
    precision = "bf16"


class Losses:
    """An observer that keeps them."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_start(self, start):
        pass

    def on_step(self, step):
        self.found.append(step.result.loss)

    def on_end(self, end):
        pass


def losses(folder, **picks):
    seen = Losses()
    composition = compose_tiny({"algorithm.steps": 4, **picks}, host=tiny_host(objects={"imaginary": imaginary}))
    run(composition, observers=[seen], folder=folder)
    return seen.found


@pytest.mark.parametrize("device", DEVICES)
def test_four_steps_in_float32_have_the_losses_of_the_cpu(device, tmp_path):
    expected = losses(tmp_path / "cpu", device="cpu", precision="fp32")
    found = losses(tmp_path / "other", device=device, precision="fp32")
    assert len(expected) == 4
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_two_runs_on_it_give_the_same_bits_where_that_is_asked_for(device, tmp_path):
    first, second = (losses(tmp_path / name, device=device, deterministic=True) for name in ("one", "two"))
    assert first == second
