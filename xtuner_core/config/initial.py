"""`init=RUN|DIR`: the weights that a run starts from, and the model where none is picked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from xtuner_core.config.layers import Assignment, Key
from xtuner_core.config.naming import Naming
from xtuner_core.config.picks import Layers, is_pick
from xtuner_core.engine.checkpoint.weights import weights_folder

INIT: Key = ("init",)
MODEL: Key = ("model",)


def place_init(layers: Layers, naming: Naming) -> None:
    """Write `init` as the absolute folder of the weights that it means, and as the model, unless the user picks one.

    A default recipe's model does not count as picked: it goes, its values included.

    :raises DataError: a run is named that has no weights.
    """
    written = [a for layer in layers for a in layer if a.path == INIT]
    if not written or not isinstance(written[-1].value, str):
        return
    folder = str(weights_folder(Path(written[-1].value).expanduser()).resolve())
    for layer in layers:
        layer[:] = [replace(a, value=folder) if a is written[-1] else a for a in layer]
    if naming.candidates("model") or any(is_pick(a, MODEL) for layer in layers.users for a in layer):
        return
    layers.drop([a for a in layers.default if a.path[:1] == MODEL])
    layers.default.append(Assignment(MODEL, folder, f"init={written[-1].value} ({written[-1].origin})"))
