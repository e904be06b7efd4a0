"""Observer jsonl: one line a step in the run's folder."""
