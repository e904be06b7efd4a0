"""From texts to packed batches: tokenising, cutting, packing, and a source whose position is saved."""
