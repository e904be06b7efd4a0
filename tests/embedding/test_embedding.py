"""A platform embeds the core: through `Host`, `compose` and `run`, several of each in one process."""

from __future__ import annotations

import ast
import json
import logging
import random
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from xtuner_core import Host, RunHandle, run
from xtuner_core.testing import compose_tiny, imaginary, tiny, tiny_host
from xtuner_core.testing.tiny_texts import TOKENIZER

SMALL = {
    "algorithm": {
        "name": "pretrain",
        "steps": 4,
        "tokens_per_step": 512,
        "micro_batch_tokens": 512,
        "document_tokens": 128,
    },
    "model": {"name": "qwen3_moe:tiny", "hidden_size": 64, "num_layers": 2},
    "device": "cpu",
    "observer": "jsonl",
    "tokenizer": str(TOKENIZER),
}


def test_the_example_has_thirty_lines_of_code(example):
    tree = ast.parse(Path(example.__file__).read_text())
    lines = {node.lineno for node in ast.walk(tree) if isinstance(node, ast.stmt)} - {tree.body[0].lineno}
    assert len(lines) <= 30


def test_the_example_finds_offers_problems_and_a_stopped_run(example, tmp_path):
    datasets, problems, outcome, losses = example.main(tmp_path / "run", SMALL, stop_at=2)
    assert "ours" in datasets
    (problem,) = json.loads(json.dumps(problems))
    assert problem["key"] == "optimizer.learning_rat"
    assert "learning_rate" in problem["fix"]
    assert (outcome.status, outcome.steps, outcome.summary["reason"]) == ("stopped", 2, "enough")
    assert len(losses) == 2
    assert (outcome.folder / "export" / "model.safetensors").exists()


def test_two_runs_in_succession_give_the_same_bits(watch, tmp_path):
    first, second = watch(), watch()
    outcomes = [
        run(compose_tiny(), observers=[each], folder=tmp_path / str(n)) for n, each in enumerate((first, second))
    ]
    assert first.losses == second.losses
    assert len(first.losses) == 2
    one, other = (exported(outcome) for outcome in outcomes)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_between_two_leaves_no_trace_in_the_second(watch, tmp_path):
    watches = [watch(), watch(), watch()]
    changes = ({}, {"seed": 5, "algorithm": {"steps": 3}, "precision": "bf16"}, {})
    for n, (each, change) in enumerate(zip(watches, changes, strict=True)):
        run(compose_tiny(change), observers=[each], folder=tmp_path / str(n))
    assert watches[0].losses == watches[2].losses != watches[1].losses


def test_two_hosts_in_one_process_know_nothing_of_each_other(watch, tmp_path):
    with_device, without = tiny_host(objects={"imaginary": imaginary}), Host(objects={"little": tiny})
    plans = [compose_tiny({"device": name}, host=host) for name, host in (("imaginary", with_device), ("cpu", without))]
    assert compose_tiny({"device": "imaginary"}, host=without).problems
    assert {item.name for item in plans[0].require().plugins} ^ {item.name for item in plans[1].require().plugins} == {
        "imaginary",
        "tiny",
        "little",
    }
    watches = [watch(), watch()]
    for plan, each in zip(plans, watches, strict=True):
        run(plan, observers=[each], folder=tmp_path / str(id(each)))
    assert watches[0].losses == watches[1].losses


def test_nothing_in_a_run_depends_on_the_name_of_its_device(watch, tmp_path):
    host = tiny_host(objects={"imaginary": imaginary})
    outcome = run(compose_tiny({"device": "imaginary", "precision": "auto"}, host=host), folder=tmp_path / "run")
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert outcome.status == "finished"
    assert log[0]["device"] == "imaginary (Unicorn 1)"


def test_a_stop_through_the_handle_from_an_observer_ends_the_run_with_its_weights(watch, tmp_path):
    handle = RunHandle()
    each = watch(lambda step: handle.stop("seen enough") if step.result.step == 1 else None)
    outcome = run(compose_tiny(), observers=[each], handle=handle, folder=tmp_path / "run")
    assert (outcome.status, outcome.steps, each.ends) == ("stopped", 1, ["stopped"])
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["reason"] == "seen enough"
    assert exported(outcome)


def test_a_stop_from_another_thread_ends_a_run_outside_the_main_thread(watch, tmp_path):
    handle, outcomes = RunHandle(), []
    each = watch(lambda step: handle.stop() if step.result.step == 2 else None)
    settings = {"algorithm": {"steps": 1000}}

    def work():
        outcomes.append(run(compose_tiny(settings), observers=[each], handle=handle, folder=tmp_path / "run"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(120)
    assert [outcome.status for outcome in outcomes] == ["stopped"]


def process_state():
    """All that belongs to the process and that a run might change."""
    return {
        "dtype": torch.get_default_dtype(),
        "device": torch.empty(0).device,
        "determinism": torch.get_deterministic_debug_mode(),
        "grad": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "torch": torch.get_rng_state().tolist(),
        "python": random.getstate(),
        "numpy": [str(part) for part in np.random.get_state()],
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "handlers": [(name, list(logging.getLogger(name).handlers)) for name in ("", "xtuner_core")],
        "level": logging.getLogger().level,
    }


@pytest.mark.parametrize("status", ["finished", "stopped", "failed"])
def test_a_run_puts_the_process_back_as_it_found_it(status, watch, tmp_path):
    torch.manual_seed(3)
    random.seed(4)
    before, handle = process_state(), RunHandle()

    def interrupt(step):
        handle.stop()
        if status == "failed":
            raise KeyboardInterrupt

    observers = [] if status == "finished" else [watch(interrupt)]
    composition = compose_tiny({"device": {"name": "cpu", "threads": 1}})
    if status == "failed":
        with pytest.raises(KeyboardInterrupt):
            run(composition, observers=observers, handle=handle, folder=tmp_path / "run")
    else:
        outcome = run(composition, observers=observers, handle=handle, folder=tmp_path / "run")
        assert outcome.status == status
    assert process_state() == before


def exported(outcome) -> dict[str, torch.Tensor]:
    return load_file(outcome.folder / "export" / "model.safetensors")
