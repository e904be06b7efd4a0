"""Optimizer muon: matrices by orthogonalised momentum, everything else by AdamW."""
