"""Precisions fp32 and bf16: plain dtypes without module replacement."""
