"""What a run reads before it builds anything: its device, its texts, its tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn

from xtuner_core.capabilities import negotiate
from xtuner_core.contracts.dataset import Corpus
from xtuner_core.contracts.device import Device, DeviceFacts
from xtuner_core.contracts.tokenizer import Tokenizer
from xtuner_core.engine.profile import profile_problems
from xtuner_core.errors import ComposeError, DataError
from xtuner_core.hf.tokenizer import load_tokenizer
from xtuner_core.nn.roles import parameter_role
from xtuner_core.parts import Parts
from xtuner_core.roles import matches


@contextmanager
def opened_device(parts: Parts, local_rank: int = 0) -> Iterator[tuple[Device, DeviceFacts]]:
    """Open the run's device, and negotiate again with what it finds.

    :param local_rank: of this process among the ranks of its host.
    :raises ComposeError: what was chosen cannot work on this device; carries every problem.
    """
    device: Device = parts.make("device", local_rank=local_rank)
    try:
        facts = device.facts()
        chosen = {pick.key: parts.offer(pick.key) for pick in parts.plan.picks}
        problems = [
            *negotiate(chosen, facts=facts),
            *profile_problems(parts.core.profile, facts),
            *parts.host.check(parts.plan, facts),
        ]
        if problems:
            raise ComposeError(problems)
        yield device, facts
    finally:
        device.close()


def is_deterministic(parts: Parts, device: Device) -> bool:
    """Say whether this run must give the same bits each time: as configured, else as the device has it."""
    wanted = parts.core.deterministic
    return device.deterministic if wanted is None else wanted


def open_corpora(parts: Parts) -> dict[str, Corpus]:
    """Open the run's datasets, by the name of their entry."""
    cache = cache_folder(parts)
    return {pick.key.rpartition(".")[2]: parts.make(pick.key, cache=cache) for pick in parts.plan.picked("dataset")}


def cache_folder(parts: Parts) -> Path:
    """Folder of what can be made again, shared by all runs."""
    settings = parts.core.data
    return Path(parts.core.output) / ".cache" if settings.cache is None else Path(settings.cache).expanduser()


def choose_tokenizer(parts: Parts, corpora: Mapping[str, Corpus]) -> Tokenizer:
    """Load the tokenizer that the configuration names, else that of `init`, the model's path, the first dataset.

    :raises DataError: none of them has one, or it is damaged.
    """
    if parts.core.tokenizer != "auto":
        return load_tokenizer(Path(parts.core.tokenizer))
    pick = parts.plan.pick("model")
    for source in (parts.core.init, pick.source if pick is not None else None):
        if source and (Path(source) / "tokenizer.json").exists():
            return load_tokenizer(Path(source))
    folders = [corpus.tokenizer for corpus in corpora.values() if corpus.tokenizer is not None]
    if not folders:
        message = "this run has no tokenizer: neither the model's folder nor a dataset brings one"
        raise DataError(message, fix="set tokenizer=DIR, a folder that holds a tokenizer.json")
    return load_tokenizer(folders[0])


def check_vocabulary(whole: Mapping[str, Tensor], model: nn.Module, tokenizer: Tokenizer) -> None:
    """Refuse a model whose embedding has fewer rows than the tokenizer has ids.

    :param whole: tensors of the undivided model by name.
    :raises DataError: says both.
    """
    roles = parameter_role(model)
    rows = [whole[name].shape[0] for name, (role, _) in roles.items() if matches(role, "embed")]
    if rows and max(rows) < tokenizer.size:
        message = f"the model embeds {max(rows)} ids, the tokenizer in {tokenizer.folder} has {tokenizer.size}"
        fix = f"give the model a vocabulary of {tokenizer.size} (model.vocab_size), or set tokenizer=DIR"
        raise DataError(message, fix=fix)
