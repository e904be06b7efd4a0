"""Trains on the first texts over and over."""
