"""Checkpoints of several ranks: the files of one, read by any number, and saves that go on beside the steps."""

from __future__ import annotations

import errno
import threading
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from xtuner_core.config.root import CheckpointConfig
from xtuner_core.contracts.weights import Init, Part, WeightEntry, WeightMap
from xtuner_core.engine.checkpoint import saver as saver_module
from xtuner_core.engine.checkpoint.manifest import damage
from xtuner_core.engine.checkpoint.saved import problems, read_checkpoint
from xtuner_core.engine.checkpoint.saver import Saver
from xtuner_core.engine.checkpoint.snapshot import Snapshot, Weights
from xtuner_core.errors import RunError
from xtuner_core.testing.together import Threads, run_together

ROWS, COLUMNS = 7, 4


class Plain(nn.Module):
    """One matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(to_hf=lambda: {"model_type": "plain"})
        self.matrix = nn.Parameter(torch.arange(ROWS * COLUMNS, dtype=torch.float32).view(ROWS, COLUMNS))

    def weight_map(self) -> WeightMap:
        return WeightMap((WeightEntry(hf_name="m", parameter="matrix", init=Init("constant", 0.0)),))


class Host:
    """A device without pinned memory."""

    def facts(self):
        return SimpleNamespace(capabilities=frozenset())

    def synchronize(self):
        pass


class Log:
    def __init__(self):
        self.lines = []

    def info(self, event, **values):
        self.lines.append((event, values))

    warning = info


class Rank:
    """What one rank has of a run: rows of the matrix and of its moment, and its own random state."""

    def __init__(self, rank, size):
        each = -(-ROWS // size)
        self.start, self.rank = min(rank * each, ROWS), rank
        self.rows = slice(self.start, min(self.start + each, ROWS))
        self.model, self.step, self.log = Plain(), 1, Log()
        self.matrix = self.model.matrix.detach()[self.rows].clone()
        self.moment = self.matrix * 10

    def part(self, tensor):
        return Part(tensor=tensor, shape=(ROWS, COLUMNS), start=(self.start, 0))

    def take(self, score):
        states = {"matrix": {"moment": self.moment, "scale": torch.tensor(3.0)}}
        snapshot = Snapshot(
            step=self.step,
            optimizer={"step": self.step, "parameters": states},
            moments={"optimizer.parameters.matrix.moment": self.part(self.moment)},
            algorithm={"drawn": self.step, "order": torch.tensor([1, 2])} if self.rank == 0 else {},
            random={"who": self.rank, "state": torch.tensor([self.rank])},
            plan="{}\n",
            plan_digest="digest",
            score=score,
        )
        return Weights(model=self.model, parts={"matrix": self.part(self.matrix)}), snapshot


def saver(rank, run, together, background=None, **settings):
    settings = CheckpointConfig(**settings)
    threads = together if background is None else background
    return Saver(run, settings, rank.take, rank.log, together, background=threads, device=Host())


def save(run, size, **settings):
    """Save step 1 on so many ranks."""
    run.mkdir()
    found = run_together(size, lambda t: saver(Rank(t.rank, size), run, t, **settings).save(1))
    assert all(isinstance(seconds, float) for seconds in found), found
    return run / "checkpoints" / "step-00000001"


def files(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.mark.parametrize("size", [2, 4, 5])
def test_a_checkpoint_of_several_ranks_differs_from_one_ranks_in_the_random_states_only(tmp_path, size):
    one, many = files(save(tmp_path / "one", 1)), files(save(tmp_path / "many", size))
    assert one.keys() == many.keys()
    assert {name for name in one if one[name] != many[name]} == {"manifest.json", "state.json", "state.safetensors"}
    assert problems(tmp_path / "many" / "checkpoints" / "step-00000001") == []


@pytest.mark.parametrize("then", [1, 4])
@pytest.mark.parametrize("now", [1, 2, 3])
def test_any_number_of_ranks_reads_its_boxes(tmp_path, then, now):
    checkpoint = save(tmp_path / "run", then)
    for rank in (Rank(number, now) for number in range(now)):
        wanted = {
            "optimizer.parameters.matrix.moment": rank.part(torch.empty_like(rank.moment)),
            "optimizer.parameters.matrix.scale": Part.whole(torch.empty(())),
        }
        saved = read_checkpoint(checkpoint, wanted)
        assert torch.equal(saved.optimizer["parameters"]["matrix"]["moment"], rank.moment)
        assert saved.optimizer["parameters"]["matrix"]["scale"] == 3
        assert (saved.step, saved.algorithm["drawn"], saved.algorithm["order"].tolist()) == (1, 1, [1, 2])
        assert [(state["who"], state["state"].item()) for state in saved.random] == [(n, n) for n in range(then)]


def test_a_number_that_is_none_on_one_rank_is_refused_by_all(tmp_path):
    def work(together):
        rank = Rank(together.rank, 3)
        if together.rank == 1:
            rank.moment[0, 0] = torch.nan
        saver(rank, tmp_path, together).save(1)

    for error in run_together(3, work):
        assert isinstance(error, RunError)
        assert error.message == "step 1: optimizer.parameters.matrix.moment holds NaN or an infinity, and is not saved"
    assert list(tmp_path.rglob("*")) == []


def test_a_save_that_fails_on_one_rank_has_failed_on_all_and_the_last_is_an_error(tmp_path, monkeypatch):
    from xtuner_core.hf import placed

    here, write_all = threading.local(), placed._write_all

    def full(descriptor, data, offset):
        if here.rank == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_all(descriptor, data, offset)

    monkeypatch.setattr(placed, "_write_all", full)

    def work(together):
        here.rank, rank = together.rank, Rank(together.rank, 2)
        saving = saver(rank, tmp_path, together)
        assert saving.save(1) is None
        told = [event for event, _ in rank.log.lines]
        assert len(told) == 1
        assert told[0].startswith("checkpoint not saved, the run goes on: No space left on device")
        saving.save_last(1)

    for error in run_together(2, work):
        assert isinstance(error, RunError)
        assert "No space left on device" in error.message
        assert error.message.endswith("the last good one is none")
    assert list(tmp_path.rglob("*")) == []


# ── saves beside the steps ─────────────────────────────────────────────────────────────────────────────────────────


def test_an_asynchronous_save_holds_the_step_that_it_was_asked_at(tmp_path, monkeypatch):
    go_on, write = threading.Event(), saver_module.write_checkpoint

    def slowly(*arguments):
        assert go_on.wait(20)
        write(*arguments)

    monkeypatch.setattr(saver_module, "write_checkpoint", slowly)
    barrier, table = threading.Barrier(2, timeout=20), [None, None]

    def work(together):
        rank = Rank(together.rank, 2)
        background = Threads(together.rank, 2, barrier, table)
        saving = saver(rank, tmp_path, together, background, asynchronous=True)
        assert saving.save(1) is None
        assert not (tmp_path / "checkpoints").exists()
        rank.matrix.zero_(), rank.moment.zero_()
        together.gather(None), go_on.set()
        saving.settle()

    assert run_together(2, work) == [None, None]
    monkeypatch.undo()
    expected = files(save(tmp_path / "other", 2))
    assert files(tmp_path / "checkpoints" / "step-00000001") == expected


def test_one_save_is_under_way_at_most_and_the_last_waits_for_it(tmp_path):
    rank = Rank(0, 1)
    saving = saver(rank, tmp_path, SimpleNamespace(**ALONE), asynchronous=True, keep_last=5)
    assert saving.save(1) is None
    rank.step = 2
    assert saving.save(2) > 0
    assert damage(tmp_path / "checkpoints" / "step-00000001") == []
    rank.step = 3
    saving.save_last(3)
    names = sorted(item.name for item in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000001", "step-00000002", "step-00000003"]


ALONE = {"rank": 0, "size": 1, "leads": True, "gather": lambda data: [data], "share": lambda data: data}


def test_what_fails_in_the_thread_is_told_at_the_next_save_and_ends_the_run_where_it_is_no_disk(tmp_path, monkeypatch):
    rank = Rank(0, 1)
    saving = saver(rank, tmp_path, SimpleNamespace(**ALONE), asynchronous=True)

    def fail(error):
        def write(*arguments):
            raise error

        monkeypatch.setattr(saver_module, "write_checkpoint", write)

    fail(OSError(errno.ENOSPC, "No space left on device"))
    saving.save(1)
    saving.settle()
    assert rank.log.lines == [
        ("checkpoint not saved, the run goes on: No space left on device", {"step": 1, "last_good": None})
    ]
    fail(MemoryError("gone"))
    saving.save(1)
    with pytest.raises(MemoryError):
        saving.save(2)


def test_a_run_that_saves_beside_its_steps_goes_on_to_the_same_bits(tiny, whole, tmp_path):
    changes = {"checkpoint.asynchronous": True}
    tiny.train(tmp_path / "run", changes, stop_after=5)
    assert tiny.checkpoints(tmp_path / "run") == ["step-00000004", "step-00000005"]
    tiny.train(tmp_path / "run", changes, resume=True)
    assert tiny.weights(tmp_path / "run") == tiny.weights(whole)
    assert tiny.numbers(tmp_path / "run") == tiny.numbers(whole)
    assert not [item for item in (tmp_path / "run" / "checkpoints").iterdir() if item.name.startswith(".")]
