"""Hugging Face in and out: configuration, tokenizer and safetensors, read and written as a stream."""
