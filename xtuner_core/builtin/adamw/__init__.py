"""Optimizer adamw."""
