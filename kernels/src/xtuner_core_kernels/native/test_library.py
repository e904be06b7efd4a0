"""The library: its names, its levels, and what implementations say where there is none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from xtuner_core_kernels.attention import native as attention
from xtuner_core_kernels.experts import cpu, native
from xtuner_core_kernels.native import library
from xtuner_core_kernels.operator import Use

USE = Use.of("experts", "cpu", torch.float32)


def test_the_library_is_of_these_sources_and_of_a_level_that_the_processor_has() -> None:
    found = library.open_library()
    assert isinstance(found, library.Library), found
    assert found.level in library.LEVELS
    assert found.fork is not None
    assert native.IMPLEMENTATION.supports(USE) is None


def test_every_level_but_the_baseline_may_be_missing(tmp_path: Path) -> None:
    for source in library.FOLDER.glob("*.[ch]"):
        shutil.copy(source, tmp_path)
    shutil.copy(library.library_file("baseline"), tmp_path)
    found = library.open_library(tmp_path)
    assert isinstance(found, library.Library)
    assert found.level == "baseline"


def test_a_library_of_other_sources_is_not_called(tmp_path: Path) -> None:
    for file in (*library.FOLDER.glob("*.[ch]"), *library.FOLDER.glob("*.so")):
        shutil.copy(file, tmp_path)
    (tmp_path / "team.c").write_text("/* changed */")
    assert "its sources changed since" in str(library.open_library(tmp_path))


def test_a_damaged_library_is_a_reason(tmp_path: Path) -> None:
    library.library_file("baseline", tmp_path).write_bytes(b"no library")
    assert "cannot be loaded" in str(library.open_library(tmp_path))


@pytest.mark.parametrize("operator", [native, attention], ids=lambda module: module.IMPLEMENTATION.operator)
def test_without_a_library_it_refuses_and_cpu_is_next(operator, monkeypatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(library, "library", lambda: library.open_library(tmp_path))
    assert "no C compiler when xtuner-core-kernels was installed" in str(operator.IMPLEMENTATION.supports(USE))
    assert cpu.IMPLEMENTATION.supports(USE) is None
    assert operator.IMPLEMENTATION.preference > cpu.IMPLEMENTATION.preference
