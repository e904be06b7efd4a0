"""From records to token ids and what each counts in training; imports no torch."""
