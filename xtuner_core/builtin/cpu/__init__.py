"""Device cpu: the processor that every machine has."""
