"""`runs list|show|compare` read what runs leave in their folders, and need nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xtuner_core import compose
from xtuner_core.runs import find_runs, read_run


@pytest.fixture
def leave(tmp_path):
    """Leaves the folder of a run: its plan, metrics of its steps, a summary unless it goes on."""

    def made(name: str, *overrides: str, losses=(3.0, 2.5), status: str | None = "finished") -> Path:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        plan = compose(plugins=["qwen3_moe"], overrides=["device=cpu", *overrides]).require()
        (folder / "plan.json").write_text(plan.to_json())
        lines = [
            {"step": step, "loss": loss, "mfu": None, "metrics.held_out.loss": loss + 1}
            for step, loss in enumerate(losses, start=1)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if status is not None:
            summary = {"status": status, "steps": len(losses), "loss": losses[-1], "tokens_per_second": 1234.5}
            (folder / "summary.json").write_text(json.dumps(summary))
        return folder

    return made


def test_every_run_is_a_line_with_its_status_and_figures(cli, leave, tmp_path):
    leave("a")
    leave("b", status=None)
    said = cli("runs", "list", str(tmp_path / "runs"))
    assert said.code == 0
    _, first, second = said.out.splitlines()
    assert first.split() == ["a", "finished", "pretrain", "qwen3_moe:tiny", "2", "2.5", "3.5", "1234"]
    assert second.split()[:2] == ["b", "unfinished"]


def test_a_folder_that_cannot_be_read_is_named_and_the_others_are_listed(cli, leave, tmp_path):
    leave("good")
    (leave("torn") / "plan.json").write_text("{")
    said = cli("runs", "list", str(tmp_path / "runs"), "--json")
    assert [row["name"] for row in json.loads(said.out)] == ["good"]
    assert "torn/plan.json is no plan" in said.err


def test_a_run_is_shown_with_what_somebody_chose_and_what_came_of_it(cli, leave):
    said = cli("runs", "show", str(leave("a", "seed=7", "optimizer.learning_rate=1e-3")))
    assert said.code == 0
    lines = [line.split() for line in said.out.splitlines()]
    assert ["seed", "7", "command", "line"] in lines
    assert ["optimizer.learning_rate", "0.001", "command", "line"] in lines
    assert ["held_out.loss", "3.5"] in lines
    assert ["device", "cpu", "cpu"] in lines


def test_runs_are_compared_by_what_their_plans_differ_in(cli, leave):
    first, second = leave("a", "seed=1"), leave("b", "seed=2", losses=(3.0, 2.0, 1.0))
    said = cli("runs", "compare", str(first), str(second), "--json")
    data = json.loads(said.out)
    assert data["differences"] == {"config.seed": [1, 2]}
    assert data["figures"]["loss"] == [2.5, 1.0]
    assert data["figures"]["steps"] == [2, 3]


def test_a_comparison_is_plotted_into_a_file(cli, leave, tmp_path):
    figure = tmp_path / "loss.svg"
    said = cli(
        "runs", "compare", str(leave("a")), str(leave("b")), "-m", "loss", "-m", "held_out.loss", "--plot", str(figure)
    )
    assert said.code == 0
    assert figure.read_text().count("<path") > 4


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["runs", "show", "{empty}"], "is no run's folder"),
        (["runs", "list", "{empty}/nowhere"], "there is no folder"),
        (["runs", "compare", "{a}"], "one run is compared with nothing"),
        (["runs", "compare", "{a}", "{b}", "-m", "los"], "none of these runs has the metric 'los'"),
        (["runs", "compare", "{a}", "{b}", "--plot", "{empty}/x.doc"], "the plot cannot be written"),
    ],
)
def test_what_cannot_be_shown_is_refused(cli, leave, tmp_path, arguments, complaint):
    places = {"empty": tmp_path / "empty", "a": leave("a"), "b": leave("b")}
    places["empty"].mkdir()
    said = cli(*(argument.format(**places) for argument in arguments))
    assert said.code != 0
    assert complaint in said.err


def test_of_a_step_that_a_resumed_run_took_again_the_later_line_counts(leave):
    folder = leave("a")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 2, "loss": 2.25}) + "\n" + '{"step": 3, "lo')
    assert read_run(folder).series("loss") == ([1, 2], [3.0, 2.25])


def test_a_damaged_line_is_named(leave):
    folder = leave("a")
    (folder / "metrics.jsonl").write_text('{"step": 1}\nnothing\n')
    (run,), _ = find_runs(folder.parent)
    with pytest.raises(Exception, match=r"metrics\.jsonl:2 is no JSON"):
        _ = run.metrics
