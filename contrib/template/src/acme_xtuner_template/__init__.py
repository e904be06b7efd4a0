"""A dense decoder for xtuner-core."""
