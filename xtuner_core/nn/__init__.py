"""Building blocks that model plugins compose."""

from __future__ import annotations

from xtuner_core.nn.attention import Attention, AttentionCore
from xtuner_core.nn.balance import Balance, Segments
from xtuner_core.nn.embedding import TokenEmbedding
from xtuner_core.nn.head import TokenHead
from xtuner_core.nn.mla import LatentAttention, LatentSizes
from xtuner_core.nn.mlp import MLP
from xtuner_core.nn.moe import Experts, LocalDispatcher, LocalPlan, MoE, MoEAuxiliary, Router, Routing
from xtuner_core.nn.norm import RMSNorm
from xtuner_core.nn.operators import OperatorModule
from xtuner_core.nn.roles import iter_roles, parameter_role, put, select, set_role
from xtuner_core.nn.rope import Frequencies, RotaryConfig, RotaryTable, default_frequencies
from xtuner_core.nn.rope_scaling import Llama3Frequencies
from xtuner_core.nn.transformer import CausalLM, DecoderLayer, Pack
from xtuner_core.nn.weight_entries import (
    attention_entries,
    fused_entries,
    latent_attention_entries,
    linear_entries,
    mlp_entries,
    norm_entry,
)

__all__ = [
    "MLP",
    "Attention",
    "AttentionCore",
    "Balance",
    "CausalLM",
    "DecoderLayer",
    "Experts",
    "Frequencies",
    "LatentAttention",
    "LatentSizes",
    "Llama3Frequencies",
    "LocalDispatcher",
    "LocalPlan",
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
    "attention_entries",
    "default_frequencies",
    "fused_entries",
    "iter_roles",
    "latent_attention_entries",
    "linear_entries",
    "mlp_entries",
    "norm_entry",
    "parameter_role",
    "put",
    "select",
    "set_role",
]
