"""Datasets in local files: JSON Lines, Parquet, plain text."""
