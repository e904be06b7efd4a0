"""What optimizers share: AdamW over a part of the parameters, the usual weight decay, rates by group, saved states."""

from __future__ import annotations

from xtuner_core.engine.optim.adamw import AdamWUpdate
from xtuner_core.engine.optim.groups import group_rates, weight_decay
from xtuner_core.engine.optim.states import copy_states

__all__ = ["AdamWUpdate", "copy_states", "group_rates", "weight_decay"]
