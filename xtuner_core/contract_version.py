"""Which plugins this contract works with: its own version, and one minor version behind with a warning."""

from __future__ import annotations

import re
import warnings

from xtuner_core.discovery import Candidate
from xtuner_core.errors import ContractError
from xtuner_core.hookspecs import CONTRACT


class OldContractWarning(UserWarning):
    """A plugin was written for an earlier minor version of the contract."""


def check_contract(version: str, candidate: Candidate, *, core: tuple[int, int] = CONTRACT) -> None:
    """Refuse a plugin of another contract; warn of one that is a minor version behind.

    :param version: what the plugin states, `"1.0"`.
    :raises ContractError: with who has to be updated.
    """
    ours = ".".join(map(str, core))
    if not re.fullmatch(r"\d+\.\d+", version):
        message = f"{candidate} states the contract version {version!r}, which is not 'major.minor'"
        raise ContractError(message, fix=f"this core speaks {ours}", plugin=candidate.name)
    major, minor = map(int, version.split("."))
    written = f"{candidate} is written for contract {version}, this core speaks {ours}"
    if (major, minor) > core:
        raise ContractError(written, fix="pip install --upgrade xtuner-core", plugin=candidate.name)
    if major < core[0] or minor < core[1] - 1:
        raise ContractError(written, fix=f"pip install --upgrade {candidate.distribution}", plugin=candidate.name)
    if minor < core[1]:
        warnings.warn(f"{written}; it works until {core[0]}.{core[1] + 1}", OldContractWarning, stacklevel=2)
