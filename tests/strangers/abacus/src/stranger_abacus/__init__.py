"""A second name for the processor, with facts of its own."""
