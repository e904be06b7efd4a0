"""Plugins that ship with the core, through the public hooks only."""
