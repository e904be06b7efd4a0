"""`export` and `generate` on a run that has ended, `doctor` on one that can be replayed and one that cannot."""

from __future__ import annotations

import io
import json
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from xtuner_core_kernels.native.library import library

from xtuner_core import Host, compose
from xtuner_core.contracts.sampling import Sampling
from xtuner_core.engine.build import draw, fill
from xtuner_core.engine.inputs import choose_tokenizer, open_corpora, opened_device
from xtuner_core.engine.ranks.groups import alone
from xtuner_core.hf.write import export
from xtuner_core.parts import Parts

SMALL = ("model.num_layers=1", "model.num_experts=2", "model.hidden_size=32", "model.moe_intermediate_size=16")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with an untrained model's weights in several files."""
    folder = tmp_path_factory.mktemp("run")
    host = Host()
    parts = Parts(compose(overrides=SMALL, host=host).require(), host)
    with opened_device(parts) as (device, _):
        drawn = draw(parts, device, alone(device.torch_device.type))
        fill(parts, drawn, device)
        tokenizer = choose_tokenizer(parts, open_corpora(parts))
        export(drawn.model, folder / "export", tokenizer=tokenizer, shard_bytes=60_000)
    (folder / "plan.json").write_text(parts.plan.to_json())
    (folder / "summary.json").write_text('{"status": "finished"}')
    return folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted(folder.glob("*.safetensors"))
    assert len(files) > 1
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def test_export_copies_every_file_of_the_run(cli, run, tmp_path):
    result = cli("export", str(run), str(tmp_path / "new" / "out"))

    source, copy = run / "export", tmp_path / "new" / "out"
    assert result.out == f"weights: {copy}\n"
    assert {f.name: f.read_bytes() for f in copy.iterdir()} == {f.name: f.read_bytes() for f in source.iterdir()}


def test_export_in_another_dtype_rounds_the_parameters_and_says_so(cli, run, tmp_path):
    assert cli("export", str(run), str(tmp_path / "out"), "--dtype", "bfloat16").code == 0

    before, after = tensors(run / "export"), tensors(tmp_path / "out")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == torch.bfloat16
        assert torch.equal(after[name], tensor.bfloat16())
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    assert index["metadata"]["total_size"] == sum(2 * tensor.numel() for tensor in after.values())


def test_export_refuses_a_folder_that_holds_something(cli, run, tmp_path):
    (tmp_path / "note.txt").write_text("mine")

    result = cli("export", str(run), str(tmp_path))

    assert result.code == 2
    assert "exists and is not an empty folder" in result.err
    assert [file.name for file in tmp_path.iterdir()] == ["note.txt"]


def test_export_of_damaged_weights_leaves_nothing_behind(cli, run, tmp_path):
    broken = tmp_path / "run"
    (broken / "export").mkdir(parents=True)
    (broken / "plan.json").write_text((run / "plan.json").read_text())
    for file in (run / "export").iterdir():
        (broken / "export" / file.name).write_bytes(file.read_bytes())
    shard = next((broken / "export").glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-10])

    result = cli("export", str(broken), str(tmp_path / "out"))

    assert result.code == 4
    assert shard.name in result.err
    assert [item.name for item in tmp_path.iterdir()] == ["run"]


def test_a_run_without_weights_is_refused_with_its_status(cli, run, tmp_path):
    (tmp_path / "plan.json").write_text((run / "plan.json").read_text())
    (tmp_path / "summary.json").write_text('{"status": "failed"}')

    for command in (["export", str(tmp_path), str(tmp_path / "out")], ["generate", str(tmp_path), "--prompt", "x"]):
        result = cli(*command)
        assert result.code == 4
        assert "has no exported weights and no good checkpoint; its status is failed" in result.err


def test_generate_gives_the_same_from_the_run_by_prompt_and_from_its_folder_by_standard_input(cli, run, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("In the\nAnd\n"))
    options = ("--max-tokens", "4", "--seed", "3")

    of_run = cli("generate", str(run), "--prompt", "In the", "--prompt", "And", *options)
    of_folder = cli("generate", str(run / "export"), *options)

    assert of_run.code == 0, of_run.err
    assert of_run.out.startswith("In the")
    assert "\nAnd" in of_run.out
    assert of_folder.out == of_run.out


@pytest.fixture
def asked(monkeypatch):
    """Stands in for a loaded model, and keeps what it was asked."""
    seen = SimpleNamespace(folder=None, overrides=None, calls=[], parts=SimpleNamespace(plan=None))

    def complete(prompts, sampling, *, document_start):
        seen.calls.append((list(prompts), sampling, document_start))
        return [" ..." for _ in prompts]

    @contextmanager
    def load(folder, **given):
        seen.folder, seen.overrides, seen.complete = folder, given["overrides"], complete
        yield seen

    monkeypatch.setattr("xtuner_core.engine.loading.load_model", load)
    return seen


def test_generate_passes_its_options_on(cli, run, asked):
    options = ("--max-tokens", "9", "--temperature", "0.5", "--top-p", "0.9", "--seed", "4", "--no-document-start")

    result = cli("generate", str(run), "device=cpu", "--prompt", "In the", *options)

    sampling = Sampling(max_tokens=9, temperature=0.5, top_p=0.9, seed=4)
    assert asked.calls == [(["In the"], sampling, False)]
    assert (asked.folder, asked.overrides) == (run / "export", ("device=cpu",))
    assert result.out == "In the ...\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("typed", ["In the\nAnd\n\n", "In the\nAnd\n"], ids=["empty line", "end of input"])
def test_generate_asks_on_a_terminal_until_an_empty_line_or_the_end(cli, run, asked, monkeypatch, typed):
    monkeypatch.setattr("sys.stdin", Terminal(typed))

    result = cli("generate", str(run))

    assert result.code == 0, result.err
    assert [prompts for prompts, *_ in asked.calls] == [["In the"], ["And"]]


@pytest.mark.parametrize("option", [("--temperature", "-1"), ("--top-p", "0"), ("--max-tokens", "0")])
def test_generate_refuses_values_out_of_range(cli, run, option):
    result = cli("generate", str(run), "--prompt", "x", *option)

    assert result.code == 2
    assert "are wanted" in result.err


def test_a_dry_run_accounts_for_the_checkpoint_that_it_would_read(cli, run):
    result = cli("run", "--dry-run", f"model={run / 'export'}")

    assert result.code == 0, result.err
    assert "every key and shape accounted for" in result.out

    result = cli("run", "--dry-run", f"model={run / 'export'}", "model.num_layers=2")

    assert result.code == 4
    assert "model.layers.1.input_layernorm.weight: missing, expected [32]" in result.err


def test_doctor_shows_versions_devices_and_who_serves_each_operator_and_why(cli, run):
    result = cli("doctor", str(run))

    assert result.code == 0, result.out
    assert torch.__version__ in result.out
    rows = [line.split() for line in result.out.splitlines()]
    assert ["cpu", "cpu", "1"] in rows
    fastest = "cpu" if isinstance(library(), str) else "native"
    assert any(row[:3] == ["attention", fastest, "kernels"] for row in rows)
    assert "reference: lower preference" in result.out


def test_doctor_goes_on_after_what_fails_and_returns_its_exit_code(cli, run, tmp_path):
    (tmp_path / "plan.json").write_text((run / "plan.json").read_text().replace('"seed": 0', '"seed": 1'))

    result = cli("doctor", str(tmp_path))

    assert result.code == 3
    assert "was edited after it was frozen: config.seed" in result.out
    assert ["cpu", "cpu", "1"] in [line.split() for line in result.out.splitlines()]
