"""Ranks that read and write one folder together: the files of one process, and one end for all."""

from __future__ import annotations

import errno
import threading

import pytest
import torch

from xtuner_core.contracts.weights import Part
from xtuner_core.errors import ContractError, RunError, UsageError
from xtuner_core.hf import placed
from xtuner_core.hf.agreement import Agreement
from xtuner_core.hf.boxes import parts_of
from xtuner_core.hf.initialise import initialise
from xtuner_core.hf.read import read_weights
from xtuner_core.hf.targets import named_tensors
from xtuner_core.hf.write import export
from xtuner_core.testing.together import run_together

CUTS = {"rows": 0, "columns": -1}


def part(whole, rank, size, dim):
    """As `torch.chunk` cuts; ranks may be left without anything."""
    each = -(-whole.shape[dim] // size)
    start = min(rank * each, whole.shape[dim])
    at = [0] * whole.dim()
    at[dim] = start
    box = whole.narrow(dim, start, min(each, whole.shape[dim] - start)).clone()
    return Part(tensor=box, shape=tuple(whole.shape), start=tuple(at))


def held(model, rank, size, dim):
    """Everything divided along a dim, but the norm, which all ranks have."""
    mine = {name: part(tensor.detach(), rank, size, dim) for name, tensor in named_tensors(model).items()}
    norm = model.norm.detach().clone()
    return mine | {"norm": Part(tensor=norm, shape=tuple(norm.shape), start=(0,), writes=rank == 0)}


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("shard_bytes", [400, 10**9])
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("size", [2, 5])
def test_ranks_write_the_files_of_one_process(make_toy, tmp_path, size, cut, shard_bytes):
    model = make_toy(seed=3)
    expected = contents(export(model, tmp_path / "one", shard_bytes=shard_bytes))

    def write(together):
        mine = held(model, together.rank, size, CUTS[cut])
        return export(model, tmp_path / "many", parts=mine, shard_bytes=shard_bytes, together=together)

    assert run_together(size, write) == [tmp_path / "many"] * size
    assert contents(tmp_path / "many") == expected


def test_dtypes_by_name_are_those_of_the_files(make_toy, tmp_path):
    model, kinds = make_toy(seed=3), {"gate_up": torch.bfloat16, "down": torch.bfloat16}
    one = contents(export(model, tmp_path / "one", dtype=kinds))

    def write(together):
        return export(model, tmp_path / "many", parts=held(model, together.rank, 2, 0), dtype=kinds, together=together)

    run_together(2, write)
    assert contents(tmp_path / "many") == one
    assert len(one["model.safetensors"]) < len(contents(export(model, tmp_path / "full"))["model.safetensors"])


@pytest.mark.parametrize("cut", CUTS)
def test_ranks_read_and_draw_what_they_hold(make_toy, single, cut):
    model, empty = make_toy(seed=0), make_toy(seed=9)
    for rank in range(3):
        read, drawn = held(empty, rank, 3, CUTS[cut]), held(empty, rank, 3, CUTS[cut])
        report = read_weights(empty, model.weight_map(), single, parts=read)
        initialise(empty, model.weight_map(), 0, parts=drawn)
        for name, wanted in held(model, rank, 3, CUTS[cut]).items():
            if name != "head.weight":  # tied; filled under its other name
                assert torch.equal(read[name].tensor, wanted.tensor), name
                assert torch.equal(drawn[name].tensor, wanted.tensor), name
        assert report.bytes == sum(p.tensor.nbytes for n, p in read.items() if n != "head.weight")


def test_a_rank_that_has_only_some_parameters_adds_them(make_toy, tmp_path):
    model = make_toy(seed=3)
    expected = contents(export(model, tmp_path / "one"))
    every = {name: p for name, p in parts_of(model).items() if name != "head.weight"}

    def write(together):
        mine = {name: p for place, (name, p) in enumerate(every.items()) if place % 2 == together.rank}
        return export(model, tmp_path / "many", parts=mine, together=together)

    run_together(2, write)
    assert contents(tmp_path / "many") == expected


def test_parts_that_contradict_each_other_are_refused_by_all(make_toy, tmp_path):
    model = make_toy()

    def write(together):
        mine = parts_of(model)
        if together.rank == 1:
            mine["norm"] = Part.whole(torch.zeros(7))
        return export(model, tmp_path / "out", parts=mine, together=together)

    for error in run_together(2, write):
        assert isinstance(error, ContractError)
        assert "rank 1 holds norm as a part of float32 [7]" in error.message
    assert list(tmp_path.iterdir()) == []


# ── ranks that fail ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("refused", [0, 1])
def test_a_disk_that_refuses_one_rank_ends_all_and_leaves_nothing(make_toy, tmp_path, monkeypatch, refused):
    model, here, write_all = make_toy(), threading.local(), placed._write_all

    def full(descriptor, data, offset):
        if here.rank == refused:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_all(descriptor, data, offset)

    def write(together):
        here.rank = together.rank
        return export(model, tmp_path / "out", parts=held(model, together.rank, 2, 0), together=together)

    monkeypatch.setattr(placed, "_write_all", full)
    for error in run_together(2, write):
        assert isinstance(error, UsageError)
        assert "No space left on device" in error.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing", [0, 1, 2])
@pytest.mark.parametrize("early", [0, 1, 2])
def test_whenever_a_rank_fails_all_leave_with_its_error(failing, early):
    """However many steps the others would have taken together."""

    def work(together):
        with Agreement(together) as agreement:
            for step in range(3):
                if (together.rank, step) == (failing, early):
                    raise RunError("weights are lost", fix="find them")
                agreement.meet(step)
                assert agreement.lead(lambda step=step: step) == step

    for error in run_together(3, work):
        assert isinstance(error, RunError)
        assert (error.message, error.fix) == ("weights are lost", "find them")


def test_a_full_disk_comes_after_every_other_failure_and_a_bug_is_named():
    def work(together):
        with Agreement(together):
            if together.rank == 0:
                raise OSError(errno.ENOSPC, "No space left on device", "file")
            if together.rank == 2:
                raise ValueError("two")

    first, second, third = run_together(3, work)
    assert isinstance(first, RunError)
    assert isinstance(second, RunError)
    assert first.message == second.message == "rank 2 failed: ValueError: two"
    assert isinstance(third, ValueError)


def test_an_error_of_the_system_keeps_number_and_file():
    def work(together):
        with Agreement(together):
            if together.rank == 1:
                raise OSError(errno.EDQUOT, "Disk quota exceeded", "file")

    first, second = run_together(2, work)
    assert (first.errno, first.filename, first.strerror) == (errno.EDQUOT, "file", "Disk quota exceeded (rank 1)")
    assert second.strerror == "Disk quota exceeded"


def test_an_interrupt_stays_what_it_is_and_ends_the_others():
    def work(together):
        with Agreement(together):
            if together.rank == 0:
                raise KeyboardInterrupt

    first, second = run_together(2, work)
    assert isinstance(first, KeyboardInterrupt)
    assert isinstance(second, RunError)
