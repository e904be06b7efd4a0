"""Device cuda: NVIDIA GPUs."""
