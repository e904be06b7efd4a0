"""Qwen3-MoE for xtuner-core."""
