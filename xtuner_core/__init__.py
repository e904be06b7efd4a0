"""xtuner-core: a plugin microkernel that trains large mixture-of-experts language models.

The public Python API is `Host`, `compose`, `run` and the errors; it is imported on first use, so that
``import xtuner_core`` costs nothing and loads neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xtuner_core.composition import Composition, compose
    from xtuner_core.errors import XTunerCoreError
    from xtuner_core.host import Host
    from xtuner_core.plan import Plan
    from xtuner_core.wiring import Outcome, RunHandle, run

__version__ = "0.1.0"

# No module may be called `compose` or `run`: importing it would hide the function of that name.
_HOMES = {
    "Composition": "composition",
    "Host": "host",
    "Outcome": "wiring",
    "Plan": "plan",
    "RunHandle": "wiring",
    "XTunerCoreError": "errors",
    "compose": "composition",
    "run": "wiring",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'xtuner_core' has no attribute {name!r}")
    return getattr(importlib.import_module(f"xtuner_core.{_HOMES[name]}"), name)


__all__ = ["Composition", "Host", "Outcome", "Plan", "RunHandle", "XTunerCoreError", "__version__", "compose", "run"]
