"""Algorithm pretrain: next-token prediction on packed plain text."""
