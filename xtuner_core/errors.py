"""The tree of errors. Each is one sentence for a person, with the plugin that it concerns and the way out.

XTunerCoreError
├── UsageError            exit 2: what was asked for cannot be had
│   ├── UnknownName       no plugin, offer, role, capability, key or command of this name
│   ├── ConfigError       a key, a value or a file of the configuration
│   └── ComposeError      the run cannot be wired; carries every problem found, not the first
├── PluginError           exit 3: a plugin is broken, or is not the one that the plan names
│   ├── PluginImportError
│   ├── ContractError     wrong hook argument, wrong record, wrong contract version
│   └── PlanMismatch      a replay would not be the same run
├── DataError             exit 4: a text, a tokenizer, a checkpoint
│   └── WeightError       a tensor that is missing, extra, misshapen or truncated
└── RunError              exit 5: the run began and could not go on
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xtuner_core.records import Problem


class XTunerCoreError(Exception):
    """Base of all errors that a user can meet.

    :param message: one clear sentence: what, and where (key, file, line, plugin).
    :param fix: what to do about it, one sentence; empty where nothing can be advised.
    :param plugin: the plugin concerned, with its distribution, or None.
    """

    exit_code = 1

    def __init__(self, message: str, *, fix: str = "", plugin: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.plugin = plugin

    def __str__(self) -> str:
        return f"{self.message}\n  fix: {self.fix}" if self.fix else self.message


class UsageError(XTunerCoreError):
    """What was asked for cannot be had."""

    exit_code = 2


class UnknownName(UsageError):
    """No plugin, offer, role, capability, key or command bears this name."""


class ConfigError(UsageError):
    """A key, a value or a file of the configuration is wrong."""


class ComposeError(UsageError):
    """The run cannot be wired.

    :param problems: every problem found, in the order in which they were met.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        lines = ["this run cannot be composed:", *(f"- {problem}" for problem in self.problems)]
        super().__init__("\n".join(lines))


class PluginError(XTunerCoreError):
    """A plugin is broken, or is not the one that was planned for."""

    exit_code = 3


class PluginImportError(PluginError):
    """A plugin's module, factory or configuration class cannot be imported."""


class ContractError(PluginError):
    """A plugin breaks the contract: a hook's arguments, a record, or its contract version."""


class PlanMismatch(PluginError):
    """Replaying a plan here would not be the same run; the message names the fields that differ."""


class DataError(XTunerCoreError):
    """A text, a tokenizer or a checkpoint cannot be used."""

    exit_code = 4


class WeightError(DataError):
    """A checkpoint's tensors do not fit the model."""


class RunError(XTunerCoreError):
    """The run began and could not go on."""

    exit_code = 5


class RunStopped(RunError):
    """The run was asked to stop before its first step; it ends as stopped, not as failed."""
