"""`xtuner-core generate`: continue texts with a run's weights, or with any checkpoint that a plugin reads."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xtuner_core.cli.options import plugins_option
from xtuner_core.cli.session import Session
from xtuner_core.errors import UsageError

if TYPE_CHECKING:
    from xtuner_core.contracts.sampling import Sampling


@click.command("generate")
@click.argument("source", type=click.Path(path_type=Path), metavar="RUN|DIR")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@plugins_option("Name plugins beside the one that reads the checkpoint.")
@click.option("--prompt", "prompts", multiple=True, metavar="TEXT", help="Text to continue; may be repeated.")
@click.option("--max-tokens", default=128, show_default=True, help="Longest continuation.")
@click.option("--temperature", default=0.8, show_default=True, help="0 takes the most probable token.")
@click.option(
    "--top-p", default=1.0, show_default=True, help="Draw from the likeliest tokens of this total probability."
)
@click.option("--seed", default=0, show_default=True, help="Same seed and prompts, same continuations.")
@click.option(
    "--document-start/--no-document-start",
    default=True,
    show_default=True,
    help="Begin prompts with the end-of-text token, which stands before every document in training.",
)
@click.pass_obj
def generate(
    session: Session,
    source: Path,
    overrides: tuple[str, ...],
    plugins: tuple[str, ...],
    prompts: tuple[str, ...],
    max_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    document_start: bool,
) -> None:
    """Continue texts with a run's weights.

    RUN is the folder of a finished run, DIR any Hugging Face folder that a plugin reads. Without --prompt, prompts
    are asked for on a terminal until an empty line or Ctrl-D, and else read from standard input, one a line.
    KEY=VALUE as for `run`: device=cpu, precision=fp32, tokenizer=DIR.
    """
    from xtuner_core.engine.loading import exported_folder, load_model

    sampling = _sampling(max_tokens, temperature, top_p, seed)
    folder = exported_folder(source)
    with load_model(folder, plugins=plugins, overrides=overrides, host=session.open_host()) as loaded:
        session.plan = loaded.parts.plan
        for batch in _batches(prompts):
            texts = loaded.complete(batch, sampling, document_start=document_start)
            for prompt, text in zip(batch, texts, strict=True):
                click.echo(click.style(prompt, bold=True) + text)


def _sampling(max_tokens: int, temperature: float, top_p: float, seed: int) -> Sampling:
    from xtuner_core.contracts.sampling import Sampling

    try:
        return Sampling(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
    except ValueError as error:
        raise UsageError(str(error), fix="see xtuner-core generate --help") from error


def _batches(prompts: Sequence[str]) -> Iterator[Sequence[str]]:
    """All prompts at once where they are known; on a terminal one after the other."""
    if prompts:
        yield prompts
    elif sys.stdin.isatty():
        yield from _asked()
    else:
        lines = [line.rstrip("\n") for line in sys.stdin]
        if not lines:
            raise UsageError("there is no prompt: standard input is empty", fix="give --prompt TEXT")
        yield lines


def _asked() -> Iterator[Sequence[str]]:
    while True:
        try:
            prompt = click.prompt("prompt", default="", show_default=False)
        except click.Abort:
            click.echo()
            return
        if not prompt:
            return
        yield [prompt]
