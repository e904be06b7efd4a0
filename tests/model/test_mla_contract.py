"""The test model with latent and windowed attention keeps the contract of models, generation with a cache included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from xtuner_core.testing import ModelContract, latent


class TestLatent(ModelContract):
    plugin, offer = "latent", "latent"
    objects: ClassVar[Mapping[str, object]] = {"latent": latent}
