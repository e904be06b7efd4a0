"""How a platform embeds xtuner-core: texts and an observer of its own, problems as data, a stop by the handle."""

from pathlib import Path

from xtuner_core import Host, RunHandle, compose, run
from xtuner_core.api import PluginInfo, Provider, hookimpl
from xtuner_core.data.memory import TextCorpus


def open_texts(config, *, cache):
    texts = [f"{n}: the quick brown fox jumps over the lazy dog" for n in range(60)]
    return TextCorpus("ours", train=texts[:50], held_out=texts[50:])


class Plugin:
    @hookimpl
    def xtuner_plugin(self):
        return PluginInfo(contract="1.0", summary="what the platform brings")

    @hookimpl
    def xtuner_providers(self):
        return [Provider(slot="dataset", name="ours", factory=f"{__name__}:open_texts", summary="the platform's texts")]


class Watch:
    def __init__(self, stop_at: int) -> None:
        self.handle, self.stop_at, self.losses = RunHandle(), stop_at, []

    def on_start(self, start) -> None: ...
    def on_end(self, end) -> None: ...
    def on_step(self, step) -> None:
        self.losses.append(step.result.loss)
        if step.result.step == self.stop_at:
            self.handle.stop("enough")


def main(folder: Path, settings: dict, stop_at: int = 2):
    host, watch = Host(objects={"platform": Plugin()}), Watch(stop_at)
    datasets = [offer["name"] for offer in host.catalog()["offers"] if offer["slot"] == "dataset"]
    refused = compose(overrides={**settings, "optimizer": {"learning_rat": 1e-3}}, host=host)
    composition = compose(overrides={**settings, "dataset": "ours"}, host=host)
    outcome = run(composition, observers=[watch], handle=watch.handle, folder=folder)
    return datasets, [problem.as_data() for problem in refused.problems], outcome, watch.losses
