"""Configuration of the dataset hub."""

from __future__ import annotations

from dataclasses import dataclass

from xtuner_core.data.reading.keys import RecordKeys
from xtuner_core.data.reading.parts import check_fraction


@dataclass(kw_only=True)
class HubConfig(RecordKeys):
    """What `datasets.load_dataset` loads; needs `pip install 'xtuner-core[hub]'`. No code of a dataset is ever run."""

    path: str = "???"
    """Name on the Hub (`user/name`), a folder of data files, or one that `save_to_disk` wrote."""
    config_name: str | None = None
    """Configuration of a dataset that has several."""
    split: str = "train"
    """Split that is trained on; slices are allowed (`train[:1000]`)."""
    held_out_split: str | None = None
    """Split that is scored; null takes `held_out_fraction` of `split`."""
    held_out_fraction: float = 0.0
    """Share of the rows that are held out, chosen by a hash of each row's own content. Not beside `held_out_split`."""
    revision: str | None = None
    """Branch, tag or commit on the Hub; null takes its newest state, or the one that was downloaded before."""
    streaming: bool = False
    """Whether rows are fetched as they are read, without a copy on this disk."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(self.held_out_fraction)
        if self.held_out_fraction and self.held_out_split is not None:
            raise ValueError("held_out_fraction and held_out_split exclude each other; keep one")
        if self.held_out_split == self.split:
            raise ValueError(f"the split {self.split!r} cannot be trained on and held out; use held_out_fraction")
        if self.streaming and any("[" in (split or "") for split in (self.split, self.held_out_split)):
            raise ValueError("a slice of a split cannot be streamed; leave streaming or the slice out")
