"""Splits as the library `datasets` gives them, with what identifies their content."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xtuner_core.builtin.hub.config import HubConfig
from xtuner_core.data.reading.contents import digest, remembered
from xtuner_core.errors import DataError


@dataclass(frozen=True)
class Loaded:
    """A split. It is pickled with the corpus: rows lie in files that are mapped again."""

    rows: Any
    """`datasets.Dataset`, or `datasets.IterableDataset` where it is streamed."""
    files: Sequence[str]
    """What its rows come from: paths, or addresses that name a commit."""

    def identity(self, cache: Path) -> list[str]:
        """Hashes of local files, addresses of others.

        :param cache: folder of what is remembered of the files.
        """
        local = {file for file in self.files if "://" not in file}
        return [
            remembered(Path(file), cache, "sha256", digest)["sha256"] if file in local else file for file in self.files
        ]


def load_split(config: HubConfig, split: str, *, cache: Path) -> Loaded:
    """Load a split; the library downloads and converts what it has not done before.

    :param cache: folder for what is made of local files; downloads go where the library keeps them.
    :raises DataError: the library is missing, or cannot load it.
    """
    library = _library(config.path)
    home = Path(config.path).expanduser()
    with _blamed(library, config.path):
        if home.suffix == ".arrow" and home.is_file():
            return _mapped(library.Dataset.from_file(str(home)), config)
        if (home / "state.json").is_file() or (home / "dataset_dict.json").is_file():
            return _mapped(_saved(library, home, split), config)
        local = home.is_dir()
        builder = library.load_dataset_builder(
            str(home.absolute()) if local else config.path,
            config.config_name,
            revision=config.revision,
            cache_dir=str(cache / "datasets") if local else None,
        )
        if config.streaming:
            return _streamed(builder, config, split)
        builder.download_and_prepare()
        return _mapped(builder.as_dataset(split=split, in_memory=False), config)


def _library(path: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        message = f"{path} is read with the library datasets, which is not installed"
        raise DataError(message, fix="pip install 'xtuner-core[hub]'") from error
    return datasets


@contextmanager
def _blamed(library: Any, path: str) -> Iterator[None]:
    """Tell what the library raises in a sentence."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, library.exceptions.DatasetsError) as error:
        cause = error.__cause__ or error
        reason = next(iter(str(cause).splitlines()), type(cause).__name__)
        fix = (
            "correct dataset.NAME.path, config_name, split or revision; offline, load it once where there is a network"
        )
        raise DataError(f"the dataset {path} cannot be loaded: {reason}", fix=fix) from error


def _saved(library: Any, folder: Path, split: str) -> Any:
    found = library.load_from_disk(str(folder), keep_in_memory=False)
    if isinstance(found, library.DatasetDict):
        if split not in found:
            raise ValueError(f"it has no split {split!r}; its splits are {', '.join(found)}")
        return found[split]
    if found.split is not None and str(found.split) != split:
        raise ValueError(f"it is the split {str(found.split)!r}, not {split!r}")
    return found


def _mapped(rows: Any, config: HubConfig) -> Loaded:
    if config.streaming:
        raise DataError(f"{config.path} is on this disk and mapped, not streamed", fix="leave streaming out")
    return Loaded(rows, [str(Path(file["filename"]).absolute()) for file in rows.cache_files])


def _streamed(builder: Any, config: HubConfig, split: str) -> Loaded:
    files = (builder.config.data_files or {}).get(split)
    if not files:
        raise ValueError(
            f"it has no files of a split {split!r}; its splits are {', '.join(map(str, builder.config.data_files))}"
        )
    return Loaded(builder.as_streaming_dataset(split=split), [str(file) for file in files])
