"""New plugins: distributions that pass the contract suite of their slot as they are written, to change from there."""
