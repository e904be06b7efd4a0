"""The operator implementations of the distribution xtuner-core-kernels."""
