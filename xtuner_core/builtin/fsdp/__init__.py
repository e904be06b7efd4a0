"""Parallelism fsdp: parameters, gradients and optimizer states sharded over ranks (PyTorch's `fully_shard`)."""
