"""From an exported folder to a model that generates: its provider found by `config.json`, built, bound and filled."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from xtuner_core.composition import compose
from xtuner_core.contracts.device import Device
from xtuner_core.contracts.sampling import Sampling
from xtuner_core.contracts.tokenizer import Tokenizer
from xtuner_core.engine.build import Blueprint, draw, fill
from xtuner_core.engine.checkpoint.weights import weights_folder
from xtuner_core.engine.generate import generate
from xtuner_core.engine.inputs import check_vocabulary, choose_tokenizer, opened_device
from xtuner_core.engine.ranks.groups import alone
from xtuner_core.host import Host
from xtuner_core.parts import Parts


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model in its compute dtype on an open device, and its tokenizer."""

    model: nn.Module
    tokenizer: Tokenizer
    device: Device
    parts: Parts

    def complete(self, prompts: Sequence[str], sampling: Sampling, *, document_start: bool = True) -> list[str]:
        """Continue texts; the end-of-text token stops a continuation, beside those that `sampling` names.

        :param document_start: begin each with the end-of-text token, which stood before every training document.
        :raises UsageError: a prompt is empty and `document_start` false.
        """
        end = self.tokenizer.end_of_text
        start = [end] if document_start else []
        tokens = [[*start, *self.tokenizer.encode(prompt)] for prompt in prompts]
        sampling = _with_stop(sampling, end)
        samples = generate(self.model, tokens, sampling, device=self.device.torch_device)
        return [self.tokenizer.decode(sample.token_ids) for sample in samples]


@contextmanager
def load_model(
    folder: Path | str, *, plugins: Sequence[str] = (), overrides: Sequence[str] = (), host: Host | None = None
) -> Iterator[LoadedModel]:
    """Lend a model that is ready to generate; its device is closed at the end.

    :param folder: of a Hugging Face checkpoint with a tokenizer.
    :param plugins: named beside the one that reads the checkpoint's `model_type`.
    :param overrides: `key=value` (`device=cpu`, `precision=fp32`, `tokenizer=DIR`).
    :raises XTunerCoreError: no plugin reads it, or its weights or tokenizer cannot be used.
    """
    source = f"model={json.dumps(str(Path(folder).resolve()), ensure_ascii=False)}"
    composition = compose(plugins=plugins, overrides=[source, *overrides], host=host)
    parts = Parts(composition.require(), composition.host)
    with opened_device(parts) as (device, _):
        tokenizer = choose_tokenizer(parts, {})
        drawn = draw(parts, device, alone(device.torch_device.type))
        check_vocabulary(drawn.layout.whole, drawn.model, tokenizer)
        _forget_masters(drawn)
        fill(parts, drawn, device)
        yield LoadedModel(model=drawn.model, tokenizer=tokenizer, device=device, parts=parts)


def exported_folder(run: Path | str) -> Path:
    """The Hugging Face folder of a run or checkpoint; any other folder is taken as it is.

    :raises DataError: the run has exported nothing, and saved no good checkpoint.
    """
    return weights_folder(Path(run))


def _with_stop(sampling: Sampling, token: int) -> Sampling:
    return replace(sampling, stop_token_ids=tuple({*sampling.stop_token_ids, token}))


def _forget_masters(drawn: Blueprint) -> None:
    """Nothing is optimized here, so the parameters need no more than the compute dtype; still on the meta device."""
    for name, parameter in drawn.model.named_parameters():
        if name in drawn.followers:
            parameter.data = parameter.data.to(drawn.policy.compute)
