"""Building blocks that model plugins compose."""

from __future__ import annotations

from xtuner_core.nn.attention import Attention, AttentionCore
from xtuner_core.nn.balance import Balance, Segments
from xtuner_core.nn.embedding import TokenEmbedding
from xtuner_core.nn.head import TokenHead
from xtuner_core.nn.mlp import MLP
from xtuner_core.nn.moe import Dispatched, Experts, LocalDispatcher, MoE, MoEAuxiliary, Router, Routing
from xtuner_core.nn.norm import RMSNorm
from xtuner_core.nn.operators import OperatorModule
from xtuner_core.nn.roles import iter_roles, parameter_role, select, set_role
from xtuner_core.nn.rope import RotaryConfig, RotaryTable, default_frequencies
from xtuner_core.nn.transformer import CausalLM, DecoderLayer, Pack

__all__ = [
    "MLP",
    "Attention",
    "AttentionCore",
    "Balance",
    "CausalLM",
    "DecoderLayer",
    "Dispatched",
    "Experts",
    "LocalDispatcher",
    "MoE",
    "MoEAuxiliary",
    "OperatorModule",
    "Pack",
    "RMSNorm",
    "RotaryConfig",
    "RotaryTable",
    "Router",
    "Routing",
    "Segments",
    "TokenEmbedding",
    "TokenHead",
    "default_frequencies",
    "iter_roles",
    "parameter_role",
    "select",
    "set_role",
]
