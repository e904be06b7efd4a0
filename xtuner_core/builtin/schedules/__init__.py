"""Schedules constant, cosine, linear and wsd, all with a warm-up."""
