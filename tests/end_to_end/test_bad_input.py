"""Bad checkpoints, tokenizers and folders, told by the command: exit code, a sentence, nothing half-written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from xtuner_core.cli.main import main

WEIGHTS = "model.safetensors"
NORM = "model.norm.weight"


def rewritten(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        tensors = {key: value.clone() for key, value in load_file(folder / WEIGHTS).items()}
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return spoil


def truncated(folder: Path) -> None:
    file = folder / WEIGHTS
    file.write_bytes(file.read_bytes()[:-1000])


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """A copy of the finished run's weights, to be spoiled."""
    return Path(shutil.copytree(finished.export, tmp_path / "checkpoint"))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (rewritten(lambda tensors: tensors.pop(NORM)), f"{WEIGHTS}: {NORM}: missing, expected [64]"),
        (
            rewritten(lambda tensors: tensors.update(surprise=torch.zeros(2, 3))),
            f"{WEIGHTS}: surprise: extra, expected no such key, found [2, 3]",
        ),
        (
            rewritten(lambda tensors: tensors.update({NORM: torch.ones(65)})),
            f"{WEIGHTS}: {NORM}: misshapen, expected [64], found [65]",
        ),
        (truncated, f"{WEIGHTS}: "),
    ],
    ids=["missing", "extra", "misshapen", "truncated"],
)
def test_a_checkpoint_that_does_not_fit_is_refused_and_only_the_failure_is_recorded(
    copied, run_here, tmp_path, spoil, sentence
):
    spoil(copied)
    before = {file.name: file.read_bytes() for file in copied.iterdir()}
    code, said = run_here(f"model={copied}", f"output={tmp_path}/runs")
    assert code == 4
    assert sentence in said
    assert "\nfix: " in said
    assert "Traceback" not in said
    if spoil is truncated:
        assert "truncated: its data ends at byte" in said
    (run,) = (tmp_path / "runs").glob("[!.]*")
    assert_only_the_failure_is_told(run, sentence)
    assert {file.name: file.read_bytes() for file in copied.iterdir()} == before


def assert_only_the_failure_is_told(run: Path, sentence: str) -> None:
    """Plan, log and summary; no metrics, no export, no hidden remains."""
    held = {path.name for path in run.iterdir()}
    assert held - {"metrics.jsonl"} == {"plan.json", "log.jsonl", "summary.json"}
    assert "metrics.jsonl" not in held or (run / "metrics.jsonl").read_text() == ""
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert sentence in summary["error"]


def test_a_config_of_an_unknown_model_type_is_refused_before_anything_is_written(copied, run_here, tmp_path):
    (copied / "config.json").write_text('{"model_type": "mamba7"}')
    code, said = run_here(f"model={copied}", f"output={tmp_path}/runs")
    assert code == 2
    assert f"{copied}/config.json is of model_type 'mamba7', which no installed plugin reads" in said
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_tokenizer_that_is_not_there_is_refused(run_here, tmp_path):
    code, said = run_here("tokenizer=/nowhere", f"output={tmp_path}/runs")
    assert code == 4
    assert "there is no tokenizer in /nowhere: tokenizer.json is missing" in said
    (run,) = (tmp_path / "runs").glob("[!.]*")
    assert_only_the_failure_is_told(run, "there is no tokenizer in /nowhere")


MUTE = """
from xtuner_core.api import PluginInfo, Provider, hookimpl

def open_corpus(config, *, cache):
    from xtuner_core.data.memory import TextCorpus
    return TextCorpus("mute", ["a text without a tokenizer"])

@hookimpl
def xtuner_plugin(): return PluginInfo(contract="1.0", summary="texts without a tokenizer")

@hookimpl
def xtuner_providers():
    return [Provider(slot="dataset", name="mute", factory="mute_texts:open_corpus", summary="mute texts")]
"""


def test_a_run_for_which_nobody_brings_a_tokenizer_is_refused(copied, run_here, tmp_path, monkeypatch):
    site = tmp_path / "site"
    info = site / "mute_texts-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mute-texts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[xtuner_core.plugins]\nmute = mute_texts\n")
    (site / "mute_texts.py").write_text(MUTE)
    monkeypatch.syspath_prepend(site)
    (copied / "tokenizer.json").unlink()

    code, said = run_here(f"model={copied}", "--plugins", "mute", "dataset=mute", f"output={tmp_path}/runs")

    assert code == 4
    assert "this run has no tokenizer: neither the model's folder nor a dataset brings one" in said
    assert "fix: set tokenizer=DIR" in said
    (run,) = (tmp_path / "runs").glob("[!.]*")
    assert_only_the_failure_is_told(run, "this run has no tokenizer")


@pytest.mark.parametrize("place", ["{file}", "{file}/below", "/proc/runs"])
def test_an_output_folder_that_cannot_be_written_is_refused_before_any_work(run_here, tmp_path, place):
    (tmp_path / "file").write_text("mine")
    output = place.format(file=tmp_path / "file")
    code, said = run_here(f"output={output}")
    assert code == 2
    assert f"{output}" in said
    assert "fix: set " in said
    assert "Traceback" not in said
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "mine")]


def test_an_export_into_a_folder_that_cannot_be_written_leaves_nothing(finished, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert main(["export", str(finished.folder), str(tmp_path / "file" / "below")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
