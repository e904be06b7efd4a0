"""What a component of each slot can do: one short module a slot, Protocols and the few types they pass."""
