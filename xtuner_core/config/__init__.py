"""Configuration: picks told from values, a schema from the active plugins' dataclasses, origins, errors."""
