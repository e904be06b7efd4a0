"""Import what a record names, and say whose it was when that fails."""

from __future__ import annotations

import importlib
from typing import Any

from xtuner_core.errors import ContractError, PluginImportError


def load(reference: str | type, *, plugin: str, distribution: str) -> Any:
    """The object that `"package.module:name"` names; an object is returned as it is.

    :raises PluginImportError: the module cannot be imported; the cause is chained.
    :raises ContractError: the module has no such name.
    """
    if not isinstance(reference, str):
        return reference
    module, _, name = reference.partition(":")
    found: Any = import_module(module, plugin=plugin, distribution=distribution)
    for part in name.split("."):
        if not hasattr(found, part):
            message = f"plugin {plugin!r} ({distribution}) names {reference!r}, but {module} has no {part!r}"
            raise ContractError(message, fix=f"update or uninstall {distribution}", plugin=plugin)
        found = getattr(found, part)
    return found


def import_module(module: str, *, plugin: str, distribution: str) -> Any:
    """Import a plugin's module.

    :raises PluginImportError: it raises; names the package to install where one is missing.
    """
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        message = f"plugin {plugin!r} ({distribution}) cannot be imported: {module} raises {_brief(error)}"
        raise PluginImportError(message, fix=_way_out(error, distribution), plugin=plugin) from error


def _way_out(error: BaseException, distribution: str) -> str:
    update = f"update or uninstall {distribution}"
    if not isinstance(error, ImportError) or not error.name:
        return update
    if error.name.partition(".")[0] == "xtuner_core":
        return f"{update}, or update xtuner-core: it is written for another version of it"
    if isinstance(error, ModuleNotFoundError):
        return f"install the package that provides {error.name!r}, or {update}"
    return update


def _brief(error: BaseException) -> str:
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
