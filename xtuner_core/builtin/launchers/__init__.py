"""Built-in plugin: launchers."""
