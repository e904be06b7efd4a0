"""The sources of every distribution of this repository, parsed."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Source:
    """One module."""

    path: str
    """Relative to the repository, with `/`."""
    text: str
    tree: ast.Module

    def at(self, node: ast.AST) -> str:
        """Where a node stands, as `path:line`."""
        return f"{self.path}:{getattr(node, 'lineno', 0)}"

    def below(self, *folders: str) -> bool:
        """Whether the module lies in one of these folders."""
        return self.path.startswith(tuple(f"{folder.rstrip('/')}/" for folder in folders))


def _is_shipped(path: Path) -> bool:
    return not path.name.startswith("test_") and "tests" not in path.parts and path.name != "conftest.py"


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def shipped() -> list[Source]:
    """All modules that a wheel carries, the template's among them; tests are not."""
    roots = ["xtuner_core", "kernels/src", *(f"{p.parent.relative_to(REPOSITORY)}/src" for p in _plugin_projects())]
    found = [path for root in roots for path in sorted((REPOSITORY / root).rglob("*.py"))]
    paths = [path.relative_to(REPOSITORY) for path in found]
    return [_parsed(path) for path in paths if _is_shipped(path)]


@pytest.fixture(scope="session")
def projects() -> list[Path]:
    """Every `pyproject.toml` but those of the strangers, who follow no rule of ours."""
    return [REPOSITORY / "pyproject.toml", REPOSITORY / "kernels" / "pyproject.toml", *_plugin_projects()]


def _plugin_projects() -> list[Path]:
    return sorted(path for home in ("plugins", "contrib") for path in (REPOSITORY / home).glob("*/pyproject.toml"))


def _parsed(path: Path) -> Source:
    text = (REPOSITORY / path).read_text(encoding="utf-8")
    return Source(path=path.as_posix(), text=text, tree=ast.parse(text, filename=str(path)))
