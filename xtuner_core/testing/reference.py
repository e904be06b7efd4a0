"""The contract suite of models that `transformers` has too."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from xtuner_core.hf.checkpoint import open_checkpoint
from xtuner_core.hf.write import export
from xtuner_core.host import Host
from xtuner_core.registry import Offer
from xtuner_core.testing.model import ModelContract
from xtuner_core.testing.parity import Comparison, compare, transformers_model


class ReferencedModelContract(ModelContract):
    """`ModelContract`, and in every configuration the logits and gradients of a `transformers` class."""

    reference: ClassVar[str]
    """Name of the class in `transformers`, `"Qwen3MoeForCausalLM"`."""

    def reference_config(self, config: Any) -> Mapping[str, Any]:
        """Arguments of the reference's configuration class; `to_hf()` unless that asks for something of ours."""
        found: Mapping[str, Any] = config.to_hf()
        return found

    def reference_tensor(self, tensors: Mapping[str, Tensor], key: str) -> Tensor:
        """The reference's tensor for a key of the checkpoint, as a view; its own where it keeps it under that name.

        Override it where `transformers` holds parameters otherwise than it writes them (stacked experts).

        :param tensors: parameters or gradients of the reference by their names in memory.
        """
        return tensors[key]

    def reference_model(self, config: Any, dtype: torch.dtype) -> nn.Module:
        """The reference with weights of any value, on the CPU."""
        return transformers_model(self.reference, self.reference_config(config), dtype)

    def compared(self, host: Host, offered: Offer, config: Any, dtype: torch.dtype) -> Comparison:
        """Ours and the reference with the same weights, over the same documents."""
        model = self.build(host, offered, config, dtype)
        return compare(
            model,
            partial(self.reference_model, config, dtype),
            self.documents(config, count=4),
            find=self.reference_tensor,
            exact=dtype == torch.float64,
        )

    def test_float64_logits_and_gradients_equal_the_references(self, host: Host, offered: Offer, config: Any) -> None:
        """Logits within 1e-9, every gradient within 1e-8, the reference's internal float32 lifted to float64."""
        found = self.compared(host, offered, config, torch.float64)
        assert found.margin > 1e-6
        assert found.logits < 1e-9
        assert found.worst(1e-8) == {}

    def test_float32_logits_and_gradients_are_the_references_as_it_ships(
        self, host: Host, offered: Offer, config: Any
    ) -> None:
        """Within 1e-5."""
        found = self.compared(host, offered, config, torch.float32)
        assert found.margin > 1e-5
        assert found.logits < 1e-5
        assert found.worst(1e-5) == {}

    def test_an_export_has_the_keys_that_the_reference_saves(
        self, host: Host, offered: Offer, config: Any, tmp_path: Path
    ) -> None:
        """And their shapes."""
        ours = export(self.build(host, offered, config, torch.float32), tmp_path / "ours")
        cast(Any, self.reference_model(config, torch.float32)).save_pretrained(tmp_path / "theirs")
        shapes = [
            {key: tensor.shape for key, tensor in open_checkpoint(folder).tensors.items()}
            for folder in (ours, tmp_path / "theirs")
        ]
        assert shapes[0] == shapes[1]
