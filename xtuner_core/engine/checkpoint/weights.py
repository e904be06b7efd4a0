"""The weights that a folder stands for: a run's, a checkpoint's, or its own. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from xtuner_core.engine.checkpoint.keep import ranked
from xtuner_core.engine.checkpoint.layout import MODEL, PLAN, checkpoints, is_checkpoint
from xtuner_core.engine.checkpoint.manifest import damage
from xtuner_core.engine.folder import read_summary
from xtuner_core.errors import DataError

EXPORT = "export"


def weights_folder(source: Path) -> Path:
    """The Hugging Face folder that is meant by a run's folder, a checkpoint's, or a Hugging Face folder.

    Of a run that has ended it is the export. Where there is none, and where the run has not ended or was killed, it
    is the best checkpoint's model, the newest's where none was scored; damaged ones are passed over.

    :raises DataError: a run that has neither.
    """
    if is_checkpoint(source):
        return source / MODEL
    if not (source / PLAN).is_file():
        return source
    status, export = read_summary(source).get("status"), source / EXPORT
    if status and export.is_dir():
        return export
    found = checkpoints(source)
    for checkpoint in dict.fromkeys([*ranked(found), *found]):
        if not damage(checkpoint, below=f"{MODEL}/"):
            return checkpoint / MODEL
    if export.is_dir():
        return export
    ended = f"its status is {status}" if status else "it has not ended"
    raise DataError(
        f"the run {source} has no exported weights and no good checkpoint; {ended}",
        fix="choose a run that finished with export.enabled=true, or go on with this one: --resume",
    )
