"""Curves of runs over their steps, drawn by matplotlib into a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xtuner_core.errors import UsageError
from xtuner_core.runs import RunFolder


def plot_runs(runs: Sequence[RunFolder], metrics: Sequence[str], file: Path) -> None:
    """Draw each metric in a panel of its own, a line for each run.

    :raises UsageError: matplotlib is not installed, does not know the file's suffix, or cannot write there.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        fix = "pip install 'xtuner-core[plot]', or leave out --plot"
        raise UsageError("a plot needs matplotlib, which is not installed", fix=fix) from error
    figure = Figure(figsize=(8, 3.5 * len(metrics)), layout="constrained")
    FigureCanvasAgg(figure)
    for panel, metric in zip(figure.subplots(len(metrics), squeeze=False)[:, 0], metrics, strict=True):
        for run in runs:
            panel.plot(*run.series(metric), label=run.name, linewidth=1)
        panel.set(xlabel="step", ylabel=metric)
        panel.legend(fontsize="small")
    try:
        figure.savefig(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"the plot cannot be written to {file}: {error}", fix="name a .png, .svg or .pdf") from error
