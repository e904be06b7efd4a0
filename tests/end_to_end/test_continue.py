"""Training goes on from an exported folder, and a run that is told to stop leaves its weights."""

from __future__ import annotations

import signal
from pathlib import Path
from time import monotonic, sleep

from xtuner_core.hf.checkpoint import open_checkpoint


def only_run(folder: Path) -> Path:
    (home,) = (folder / "runs").glob("[!.]*")
    return home


def test_training_goes_on_from_an_exported_folder(finished, short, run_to_the_end, tmp_path):
    values = [value for value in short if not value.startswith("model.")]
    more = run_to_the_end(tmp_path, f"model={finished.export}", "dataset=kjv", "optimizer.learning_rate=5e-3", *values)
    first, last = finished.metrics[0]["loss"], finished.metrics[-1]["loss"]
    # The same first batch as that of the first run, seen by a model that has learned from it.
    assert more.metrics[0]["loss"] < (first + last) / 2
    assert more.summary["held_out"]["bits_per_byte"] < finished.summary["held_out"]["bits_per_byte"]
    shapes = [
        {key: stored.shape for key, stored in open_checkpoint(run.export).tensors.items()} for run in (more, finished)
    ]
    assert shapes[0] == shapes[1]
    assert more.weights["model.safetensors"] != finished.weights["model.safetensors"]


def test_a_model_that_learns_nothing_comes_out_as_it_went_in(finished, short, run_here, tmp_path):
    values = [value for value in short if not value.startswith("model.")]
    values += ["optimizer.learning_rate=0", "observer=null", f"output={tmp_path}/runs"]
    code, said = run_here(f"model={finished.export}", "dataset=kjv", *values)
    assert code == 0, said
    out = only_run(tmp_path) / "export"
    assert {file.name: file.read_bytes() for file in out.iterdir()} == finished.weights


def test_an_interrupted_run_exports_and_exits_as_shells_expect(short, popen, tmp_path):
    process = popen(tmp_path, *short, "algorithm.steps=1000000")
    metrics = wait_for_steps(tmp_path, process, 2)
    process.send_signal(signal.SIGINT)
    said, complained = process.communicate(timeout=60)
    assert process.returncode == 130, complained
    assert "Traceback" not in complained
    run = only_run(tmp_path)
    summary = (run / "summary.json").read_text()
    assert '"status": "stopped"' in summary
    assert '"reason": "SIGINT"' in summary
    assert f'"steps": {len(metrics.read_text().splitlines())},' in summary
    assert open_checkpoint(run / "export").complete
    assert f"weights: {run / 'export'}" in said
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


def wait_for_steps(folder: Path, process, steps: int) -> Path:
    """Wait until the run has reported so many steps; gives its `metrics.jsonl`."""
    end = monotonic() + 60
    while monotonic() < end and process.poll() is None:
        for metrics in folder.glob("runs/*/metrics.jsonl"):
            if len(metrics.read_text().splitlines()) >= steps:
                return metrics
        sleep(0.05)
    raise AssertionError(f"no {steps} steps: {process.communicate()[1] if process.poll() is not None else 'too slow'}")
