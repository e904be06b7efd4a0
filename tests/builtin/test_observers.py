"""The observers console and jsonl."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Callable
from math import inf, nan
from pathlib import Path

import pytest

from xtuner_core.builtin.console.config import ConsoleConfig
from xtuner_core.builtin.console.observer import build as build_console
from xtuner_core.builtin.jsonl.observer import FILE, JsonlObserver
from xtuner_core.builtin.jsonl.observer import build as build_jsonl
from xtuner_core.contracts.observer import RunEnd, RunStart, RunStep

Steps = Callable[..., RunStep]
SUMMARY = {
    "held_out": {"bits_per_byte": 1.512, "bytes": 2000, "tokens": 700, "documents": 3},
    "xz": {"bits_per_byte": 1.71, "ratio": 1.512 / 1.71},
    "samples": [{"prompt": "In the", "text": " beginning", "stop": "length"}],
    "export": "runs/a/export",
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def start(steps: int = 10) -> RunStart:
    return RunStart(folder=Path("runs/a"), steps=steps, summary={"model": "tiny", "operators": []})


def end(steps: int = 10) -> RunEnd:
    return RunEnd(status="finished", steps=steps, seconds=12.34, summary=SUMMARY)


def told(config: ConsoleConfig, run_step: Steps, *, steps: int, err: io.StringIO) -> str:
    """Run through an observer's life; returns what stands on standard output."""
    out = io.StringIO()
    observer = build_console(config, folder=Path(), err=err, out=out)
    observer.on_start(start(steps))
    for step in range(1, steps + 1):
        observer.on_step(run_step(step, steps, metrics={"held_out.bits_per_byte": 1.5, "expert_imbalance.0": 2.0}))
    observer.on_end(end(steps))
    return out.getvalue()


def test_lines_of_json_say_every_few_steps_how_it_goes(run_step: Steps):
    err = io.StringIO()
    told(ConsoleConfig(every=4, format="json"), run_step, steps=10, err=err)
    lines = [json.loads(line) for line in err.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["run started", *["step"] * 4, "run ended"]
    assert [line["step"] for line in lines[1:-1]] == [1, 4, 8, 10]
    assert lines[1]["loss"] == 2.5
    assert lines[1]["tokens_per_second"] == 400
    assert lines[1]["held_out.bits_per_byte"] == 1.5


def test_figures_of_single_layers_are_left_to_the_files(run_step: Steps):
    err = io.StringIO()
    told(ConsoleConfig(format="json"), run_step, steps=1, err=err)
    assert "expert_imbalance.0" not in err.getvalue()


def test_a_long_run_has_about_twenty_lines_unless_told_otherwise(run_step: Steps):
    err = io.StringIO()
    told(ConsoleConfig(), run_step, steps=400, err=err)
    steps = [line for line in err.getvalue().splitlines() if "event=step" in line]
    assert len(steps) == 21
    assert "loss=2.5" in steps[0]


def test_a_terminal_gets_a_bar_that_is_drawn_rarely_and_ends_complete(run_step: Steps):
    err = Terminal()
    told(ConsoleConfig(), run_step, steps=1000, err=err)
    shown = err.getvalue()
    assert "1000/1000" in shown
    assert "loss 2.500" in shown
    assert "400 tokens/s" in shown
    assert shown.count("tokens/s") < 100


def test_the_summary_names_held_out_bits_beside_those_of_xz_the_samples_and_the_weights(run_step: Steps):
    text = told(ConsoleConfig(), run_step, steps=1, err=io.StringIO())
    assert "1.512 bits per byte over 2000 bytes" in text
    assert "1.710 (0.88 of it)" in text
    assert "  In the| beginning" in text
    assert "runs/a/export" in text


def test_the_summary_names_the_loss_where_no_text_is_scored_and_what_it_was_before():
    out = io.StringIO()
    observer = build_console(ConsoleConfig(), folder=Path(), err=io.StringIO(), out=out)
    scores = {"held_out": {"loss": 1.25, "perplexity": 3.49}, "held_out_at_start": {"loss": 2.5, "perplexity": 12.18}}
    observer.on_end(RunEnd(status="finished", steps=1, seconds=0.1, summary=scores))
    assert (
        "held-out data: loss 1.250, perplexity 3.49; before the first step: loss 2.500, perplexity 12.18\n"
        in out.getvalue()
    )


def test_the_summary_is_one_object_where_json_is_asked(run_step: Steps):
    text = told(ConsoleConfig(format="json"), run_step, steps=1, err=io.StringIO())
    assert json.loads(text) == {"status": "finished", "steps": 1, "seconds": 12.34, **SUMMARY}


def test_a_run_without_any_results_still_has_a_summary():
    out = io.StringIO()
    observer = build_console(ConsoleConfig(), folder=Path(), err=io.StringIO(), out=out)
    observer.on_end(RunEnd(status="failed", steps=0, seconds=0.1, summary={}))
    assert out.getvalue() == "failed after 0 steps in 0.1 s\n"


def test_structlog_keeps_its_global_configuration(run_step: Steps):
    import structlog

    before = structlog.get_config()
    told(ConsoleConfig(format="json"), run_step, steps=1, err=io.StringIO())
    assert structlog.get_config() == before
    assert not structlog.is_configured()


def test_fewer_than_one_step_between_lines_is_refused():
    with pytest.raises(ValueError, match="every must be at least 1"):
        ConsoleConfig(every=0)


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()]


def write(observer: JsonlObserver, *steps: RunStep) -> None:
    for step in steps:
        observer.on_step(step)


def test_each_step_is_one_flat_line_with_everything_in_it(tmp_path: Path, run_step: Steps):
    observer = build_jsonl(None, folder=tmp_path)
    step = run_step(
        3, auxiliary={"balance": 0.1}, statistics={"expert_load": [[1.0, 2.0]]}, metrics={"held_out.bits_per_byte": 1.5}
    )
    write(observer, step)
    (line,) = lines(tmp_path)
    assert line["step"] == 3
    assert line["steps"] == 10
    assert line["loss"] == 2.5
    assert line["auxiliary.balance"] == 0.1
    assert line["statistics.expert_load"] == [[1.0, 2.0]]
    assert line["metrics.held_out.bits_per_byte"] == 1.5
    assert line["mfu"] is None
    assert not any(isinstance(value, dict) for value in line.values())


def test_a_line_is_in_the_file_as_soon_as_the_step_is_told(tmp_path: Path, run_step: Steps):
    observer = build_jsonl(None, folder=tmp_path)
    for count in (1, 2, 3):
        write(observer, run_step(count))
        assert len(lines(tmp_path)) == count


def test_figures_that_json_has_not_are_written_so_that_float_reads_them(tmp_path: Path, run_step: Steps):
    write(build_jsonl(None, folder=tmp_path), run_step(loss=nan, grad_norm=inf, statistics={"a": [-inf]}))
    (line,) = lines(tmp_path)
    assert (line["loss"], line["grad_norm"], line["statistics.a"]) == ("nan", "inf", ["-inf"])


def test_after_a_kill_in_the_middle_of_a_line_the_file_goes_on_whole(tmp_path: Path, run_step: Steps):
    write(build_jsonl(None, folder=tmp_path), run_step(1), run_step(2))
    whole = (tmp_path / FILE).read_text()
    (tmp_path / FILE).write_text(whole[:-10])
    observer = build_jsonl(None, folder=tmp_path)
    observer.on_start(RunStart(folder=tmp_path, steps=10, steps_done=1, summary={}))
    write(observer, run_step(2), run_step(3))
    observer.on_end(end())
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]


def test_what_was_told_of_steps_after_the_checkpoint_is_cut_off(tmp_path: Path, run_step: Steps):
    write(build_jsonl(None, folder=tmp_path), *(run_step(number) for number in range(1, 6)))
    observer = build_jsonl(None, folder=tmp_path)
    observer.on_start(RunStart(folder=tmp_path, steps=10, steps_done=3, summary={}))
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]
    write(observer, run_step(4))
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4]


def test_lines_that_a_full_disk_did_not_take_follow_when_there_is_room(tmp_path: Path, run_step: Steps, monkeypatch):
    observer = build_jsonl(None, folder=tmp_path)
    write_, room = os.write, [True]

    def write_where_there_is_room(descriptor: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_(descriptor, data[:100])

    monkeypatch.setattr(os, "write", write_where_there_is_room)
    write(observer, run_step(1))
    room[0] = False
    write(observer, run_step(2))
    assert [line["step"] for line in lines(tmp_path)] == [1]
    room[0] = True
    write(observer, run_step(3))
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]
