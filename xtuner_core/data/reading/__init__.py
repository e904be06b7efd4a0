"""What datasets have in common, whatever they read from: rows to records, the held-out rule, contents remembered."""
