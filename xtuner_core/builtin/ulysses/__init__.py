"""Parallelism ulysses: the tokens of a pack are spread over ranks, which trade them for heads in attention."""
