"""The command line: a thin skin over `xtuner_core.Host`, `compose` and `run`, one short module a command."""
