"""The King James Bible as bundled training text, with its byte-level BPE tokenizer."""
