"""A run that is asked to stop while it prepares ends as stopped, and the same command goes on."""

from __future__ import annotations

from xtuner_core import RunHandle, run
from xtuner_core.api import Provider
from xtuner_core.data.memory import TextCorpus
from xtuner_core.testing import compose_tiny, fake_plugin, tiny_host
from xtuner_core.testing.tiny_texts import TOKENIZER

HANDLES: list[RunHandle] = []


class Interrupting(TextCorpus):
    """Has the run stopped as soon as its texts are read."""

    def read(self, split, shard):
        for handle in HANDLES:
            handle.stop("SIGTERM")
        return super().read(split, shard)


def open_texts(config, *, cache):
    return Interrupting("interrupting", ["hocus pocus simsala bim"] * 40, tokenizer=TOKENIZER)


OFFER = Provider(slot="dataset", name="interrupting", factory=f"{__name__}:open_texts", summary="stops the run")


def test_a_stop_while_data_is_tokenised_ends_the_run_as_stopped_and_it_can_start_again(tmp_path):
    host = tiny_host(objects={"interrupting": fake_plugin("interrupting", OFFER)})
    plan = compose_tiny({"dataset": "interrupting", "output": str(tmp_path)}, host=host).require()
    handle = RunHandle()
    HANDLES.append(handle)
    outcome = run(plan, host=host, handle=handle, folder=tmp_path / "run")
    HANDLES.clear()
    assert (outcome.status, outcome.steps, outcome.summary["reason"]) == ("stopped", 0, "SIGTERM")
    again = run(plan, host=host, folder=tmp_path / "run", resume=True)
    assert (again.status, again.steps) == ("finished", 2)
