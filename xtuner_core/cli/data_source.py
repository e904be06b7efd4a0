"""A dataset opened for a look at it, with the encoder that a run would use where there is a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from xtuner_core.cli.options import plugins_option
from xtuner_core.cli.session import Session
from xtuner_core.errors import ComposeError, PluginError

if TYPE_CHECKING:
    from xtuner_core.contracts.dataset import BrokenRecord, Corpus, Record, Split
    from xtuner_core.contracts.tokenizer import Tokenizer
    from xtuner_core.data.encoding.encoded import Encoder

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
SPLITS: tuple[Split, ...] = ("train", "held_out")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """What is looked at."""

    corpus: Corpus
    tokenizer: Tokenizer | None
    encoder: Encoder | None
    """None where there is no tokenizer: then texts are counted in characters."""
    skip_broken: bool
    """Whether a run with these values would go on past broken records."""

    def records(self, split: Split) -> Iterator[Record | BrokenRecord]:
        """Every record of a part, in order."""
        for shard in self.corpus.shards(split):
            yield from self.corpus.read(split, shard)


def data_arguments(command: Decorated) -> Decorated:
    """`DATASET [KEY=VALUE]…` and `--plugins` of commands that look at data."""
    values = click.argument("values", nargs=-1, metavar="[KEY=VALUE]...")
    dataset = click.argument("dataset", metavar="FILE|NAME")
    return plugins_option("Activate plugins that offer datasets.")(dataset(values(command)))


def open_source(session: Session, dataset: str, values: Sequence[str], plugins: Sequence[str]) -> DataSource:
    """Open FILE, or the dataset of a NAME.

    :param values: `tokenizer=DIR`, `dataset.KEY=…` of the dataset's own configuration, `chat.KEY=…` of the chat
        template and its mask, `data.KEY=…`; each as a run takes them.
    :raises XTunerCoreError: nobody reads it, a value is wrong, or a file cannot be read.
    """
    from xtuner_core.config.lookup import Lookup
    from xtuner_core.config.schema import section_of
    from xtuner_core.data.chat.config import ChatConfig
    from xtuner_core.data.encoding.chat import ChatEncoder
    from xtuner_core.hf.tokenizer import load_tokenizer

    host = session.open_host()
    host.activate(*plugins)
    found = Lookup(host).find("dataset", dataset)
    config = host.config_class(found.offer)
    resolved = _resolve({"dataset": (config, str(found.offer)), "chat": (ChatConfig, "xtuner-core")}, found, values)
    made = _configuration(config, section_of(resolved, "dataset"))
    cache = resolved["data"]["cache"] or Path(resolved["output"]) / ".cache"
    corpus = _open(found.offer, made, Path(cache))
    folder = corpus.tokenizer if resolved["tokenizer"] == "auto" else Path(resolved["tokenizer"])
    tokenizer = None if folder is None else load_tokenizer(folder)
    chat = _configuration(ChatConfig, resolved["chat"])
    return DataSource(
        corpus=corpus,
        tokenizer=tokenizer,
        encoder=None if tokenizer is None else ChatEncoder(tokenizer, chat),
        skip_broken=resolved["data"]["broken"] == "skip",
    )


def _resolve(sections: dict[str, tuple[type | None, str]], found: Any, values: Sequence[str]) -> dict[str, Any]:
    from xtuner_core.config.layers import flatten, parse_overrides
    from xtuner_core.config.schema import Schema

    schema = Schema({(name,): section for name, section in sections.items()}, inactive=())
    layer = [*flatten(found.values, ("dataset",), found.label), *parse_overrides(values)]
    refused = [problem for assignment in layer if (problem := schema.assign(assignment)) is not None]
    resolved, problems = schema.resolve()
    if refused or problems:
        raise ComposeError([*refused, *problems])
    return resolved


def _configuration(cls: type | None, values: dict[str, Any]) -> Any:
    from xtuner_core.config.schema import instantiate

    return None if cls is None else instantiate(cls, values)


def _open(offer: Any, config: Any, cache: Path) -> Corpus:
    from xtuner_core.errors import XTunerCoreError
    from xtuner_core.loading import load

    factory = load(offer.provider.factory, plugin=offer.plugin, distribution=offer.distribution)
    try:
        corpus: Corpus = factory(config, cache=cache)
    except XTunerCoreError:
        raise
    except Exception as error:
        message = f"{offer} cannot be opened: {type(error).__name__}: {error}"
        raise PluginError(message, fix=f"update or uninstall {offer.distribution}", plugin=offer.plugin) from error
    return corpus
