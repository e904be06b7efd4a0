"""Write a new plugin: templates rendered into a folder that was not there before."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from xtuner_core.errors import UsageError
from xtuner_core.hookspecs import CONTRACT
from xtuner_core.scaffold.kinds import KINDS, Kind

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
TEMPLATES = "xtuner_core.scaffold"


@dataclass(frozen=True, slots=True)
class NewPlugin:
    """What is to be written.

    :param name: of the plugin and of its offer, lower snake case.
    :param slot: one of `KINDS`.
    :param package: its Python package; the distribution is called the same with dashes.
    :raises UsageError: one of them cannot be a name, or there is no template for the slot.
    """

    name: str
    slot: str
    package: str

    def __post_init__(self) -> None:
        for what, value in (("a plugin's name", self.name), ("a package's name", self.package)):
            if not _NAME.fullmatch(value):
                raise UsageError(f"{value!r} cannot be {what}", fix="write it in lower_snake_case")
        if self.slot not in KINDS:
            raise UsageError(f"there is no template for the slot {self.slot!r}", fix=f"choose of {', '.join(KINDS)}")

    @property
    def kind(self) -> Kind:
        """What a plugin of this slot consists of."""
        return KINDS[self.slot]

    @property
    def variables(self) -> dict[str, object]:
        """What templates know."""
        title = "".join(part.capitalize() for part in self.name.split("_"))
        named = {"name": self.name, "slot": self.slot, "package": self.package, "title": title}
        offer = f"{{operator}}.{self.name}" if self.slot == "operator" else self.name
        return {
            **named,
            "offer": offer.format(operator="swiglu"),
            "distribution": self.package.replace("_", "-"),
            "constant": self.name.upper(),
            "contract": f"{CONTRACT[0]}.{CONTRACT[1]}",
            "kind": self.kind,
            "factory": self.kind.factory.format(**named),
            "record_fields": {key: text.format(**named) for key, text in self.kind.fields.items()},
            "index": [key.format(**named) for key in self.kind.index],
        }


def write_plugin(new: NewPlugin, folder: Path) -> list[Path]:
    """Write the plugin's files, all or none.

    :return: them, below `folder`.
    :raises UsageError: the folder exists, or cannot be written.
    """
    if folder.exists():
        raise UsageError(f"{folder} exists already", fix="name a folder that does not, with --folder")
    texts = _rendered(new)
    try:
        for name, text in texts.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        reason = error.strerror or str(error)
        raise UsageError(f"{folder} cannot be written: {reason}", fix="name another with --folder") from error
    return [folder / name for name in texts]


def _rendered(new: NewPlugin) -> dict[str, str]:
    """Text of each file by its path."""
    environment = Environment(
        loader=PackageLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    kind, source = new.kind, Path("src") / new.package
    modules = [kind.component, *(["config"] if kind.configured else []), *kind.extra_files]
    templates = {
        "pyproject.toml": "common/pyproject.toml",
        "README.md": "common/README.md",
        str(source / "__init__.py"): "common/__init__.py",
        str(source / "plugin.py"): _own(new.slot, "plugin.py"),
        **{str(source / f"{module}.py"): f"{new.slot}/{module}.py" for module in modules},
        "tests/test_contract.py": f"{new.slot}/suite.py",
    }
    return {file: environment.get_template(f"{name}.jinja").render(new.variables) for file, name in templates.items()}


def _own(slot: str, name: str) -> str:
    """The slot's own template, where it has one, else the common one."""
    own = files(TEMPLATES).joinpath("templates", slot, f"{name}.jinja")
    return f"{slot}/{name}" if own.is_file() else f"common/{name}"
