"""A language model that looks one token back."""
