"""The machinery that every algorithm shares: operators, steps, metrics, observers, the process's state."""
