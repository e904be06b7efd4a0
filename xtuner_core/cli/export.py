"""`xtuner-core export`: the weights of a finished run as a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xtuner_core.cli.session import Session
from xtuner_core.errors import ConfigError

if TYPE_CHECKING:
    from xtuner_core.host import Host

DTYPES = ("float32", "bfloat16", "float16")


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--dtype", type=click.Choice(DTYPES), help="Of the parameters; as the run wrote them where not given.")
@click.pass_obj
def export(session: Session, run: Path, folder: Path, dtype: str | None) -> None:
    """Write a run's weights as a Hugging Face folder.

    RUN is the folder of a finished run; transformers loads DIR, which must not exist, or be empty. It appears when
    it is complete; a failure leaves nothing behind.
    """
    if not (run / "plan.json").exists():
        raise ConfigError(f"{run} is no run's folder: it holds no plan.json", fix="name a folder below runs/")
    import torch

    from xtuner_core.engine.loading import exported_folder
    from xtuner_core.hf.copy import copy_checkpoint

    source = exported_folder(run)
    if dtype is None:
        written = copy_checkpoint(source, folder)
    else:
        keep = _buffers(session.open_host(), source)
        written = copy_checkpoint(source, folder, dtype=getattr(torch, dtype), keep=keep)
    click.echo(f"weights: {written}")


def _buffers(host: Host, source: Path) -> Collection[str]:
    """Keys of the checkpoint that hold persistent buffers, whose dtype is the model's own affair."""
    import torch

    from xtuner_core.config.lookup import Lookup
    from xtuner_core.loading import load

    found = Lookup(host).find("model", str(source.resolve()))
    config = host.config_class(found.offer)
    assert config is not None
    build = load(found.offer.provider.factory, plugin=found.offer.plugin, distribution=found.offer.distribution)
    with torch.device("meta"):
        model = build(config(**found.values))
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return {entry.hf_name for entry in model.weight_map().entries if entry.parameter not in parameters}
