"""The model acme_dense for xtuner-core."""
