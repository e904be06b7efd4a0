"""Datasets of the library `datasets`: by name from the Hugging Face Hub, or in a local folder."""
