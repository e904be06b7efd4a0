"""The dense Llama family for xtuner-core."""
