"""Schedules cosine and constant, both with a warm-up."""
