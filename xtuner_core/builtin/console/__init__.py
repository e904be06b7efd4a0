"""Observer console: a progress bar on a terminal, structured lines elsewhere."""
