"""When to stop as a figure, and those of the paper (2-7, 10, 11), as SVG, PNG or PDF of equal bytes for equal runs.

Needs matplotlib (the extra `figures`). Colours are Okabe and Ito's, which the colour-blind can distinguish; the
classes also differ in marker or hatch. Denoising is tinted green, learning grey, overfitting purple.
"""

import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from sftscope.analysis.conclusions.stages import Stage, stages
from sftscope.analysis.run.run_history import ACCURACY
from sftscope.analysis.sets import metrics
from sftscope.analysis.sets.evolution import CLASS_WORDS, Change
from sftscope.analysis.sets.views import BIAS, FULL
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.lattice.transforms import Relation

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sftscope.reporting.content import Report

COLOURS = {Change.REMOVED: "#8c8c8c", Change.PRESERVED: "#0072b2", Change.EMERGED: "#d55e00"}
MARKERS = {Change.REMOVED: "x", Change.PRESERVED: "o", Change.EMERGED: "^"}
STAGES = {Stage.DENOISING: "#009e73", Stage.LEARNING: "#999999", Stage.OVERFITTING: "#cc79a7"}
INK = "#333330"  # all that is not data; an inline SVG takes the page's own colour instead
FORMATS = ("svg", "png", "pdf")
SHOWN_PROBES = 3
STRONGEST = 8
_STYLE: Any = {  # the names of matplotlib's settings are a type of their own in some versions
    "lines.linewidth": 1.3,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.facecolor": "none",  # an inline SVG lies on the page's own background, which may be dark
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "text.parse_math": False,  # a dollar in a prompt is a dollar
    "svg.fonttype": "none",
    "svg.hashsalt": "sftscope",
    "pdf.compression": 6,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


def need_matplotlib() -> None:
    """SftscopeError with what to install where matplotlib is missing, and where a stranger's settings would be obeyed.

    matplotlib reads `matplotlibrc` in the working folder as it is imported, and runs programs that it names.
    """
    if find_spec("matplotlib") is None:
        raise SftscopeError("figures and the HTML report need matplotlib; install it: pip install 'sftscope[figures]'")
    if "matplotlib" not in sys.modules and os.path.lexists("matplotlibrc"):
        raise SftscopeError("matplotlibrc: matplotlib would obey this file; run the command in another working folder")
    os.environ["MPLBACKEND"] = "agg"  # a notebook's own backend is not there in a command


def figures(report: "Report") -> dict[str, tuple[str, Callable[["Figure"], None]]]:
    """Name → caption and what draws it, in the order of the paper."""
    history = report.evolution.history
    steps, probes = f"{history.steps.size} checkpoints", f"means over {len(history.probes)} probes"
    last = report.trends.steps[-1]
    ratios = "Uncancelled ratio and generalizable ratio" if report.reference else "Uncancelled ratio"
    answer = {
        "when_to_stop": (
            f"Interactions per probe, on a logarithmic scale, and what held-out rows say ({probes}, {steps}).",
            lambda figure: _when_to_stop(figure, report),
        )
    }
    return (answer if report.verdict.held_out else {}) | {
        "figure_2_counts": (
            f"Interactions over the steps: number and strength of each class ({probes}, {steps}).",
            lambda figure: _counts(figure, report),
        ),
        "figure_2_orders": (
            f"Order distributions: sums of positive and of negative effects of each order ({probes}).",
            lambda figure: _orders(figure, report),
        ),
        "figure_3_ratios": (
            f"{ratios} of each class ({probes}, {steps}).",
            lambda figure: _ratios(figure, report),
        ),
        "figure_4_backbone": (
            f"Average contribution, and cross-entropy of predicting with one class alone, step {last} ({probes}).",
            lambda figure: _backbone(figure, report),
        ),
        "figure_5_matching": (
            f"All masked states at step {last}: the LLM and its logical model, and the matching errors.",
            lambda figure: _matching(figure, report),
        ),
        "figure_6_sparsity": (
            f"Strengths in descending order, of {len(history.probes)} probes together, relative to the strongest of "
            "them all at that step.",
            lambda figure: _sparsity(figure, report),
        ),
        "figure_11_prompt": (
            f"One prompt as a logical model: its strongest interactions at step {last}.",
            lambda figure: _prompt(figure, report),
        ),
    }


def draw(name: str, drawing: Callable[["Figure"], None], kind: str) -> bytes:
    """A figure as the bytes of an SVG, PNG or PDF file."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    metadata: dict[str, Any] = {"svg": {"Date": None}, "png": {"Software": None}}.get(kind, {"CreationDate": None})
    with (
        mpl.rc_context(mpl.rcParamsDefault),
        mpl.rc_context(_STYLE | {"svg.hashsalt": name}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # words of any script
        figure = Figure(layout="constrained")
        drawing(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=150, metadata=metadata, facecolor="none" if kind == "svg" else "white")
    return buffer.getvalue()


def inline_svg(name: str, svg: bytes) -> str:
    """An SVG file as an element of a page: ids of its own, no header, ink in the page's colour."""
    text = svg.decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'url\(#([^)]+)\)|href="#([^"]+)"', lambda found: _reference(name, found), text)
    return text.replace(INK, "currentColor").strip()


def _reference(name: str, found: re.Match[str]) -> str:
    return f"url(#{name}-{found[1]})" if found[1] else f'href="#{name}-{found[2]}"'


def _step_axis(axes: "Axes", report: "Report", title: str, unit: str) -> None:
    """Checkpoints evenly spaced, labelled with their steps, stages shaded."""
    steps = report.trends.steps
    every = max(1, -(-len(steps) // 12))
    shown = list(range(0, len(steps), every))
    axes.set_xticks(shown, [str(steps[index]) for index in shown])
    axes.set(title=title, xlabel="step", ylabel=unit, xlim=(-0.5, len(steps) - 0.5))
    for stage, part in groupby(enumerate(_stages(report)), key=lambda pair: pair[1]):
        inside = [index for index, _ in part]
        if stage is not None:
            axes.axvspan(inside[0] - 0.5, inside[-1] + 0.5, color=STAGES[stage], alpha=0.12, linewidth=0)


def _stages(report: "Report") -> list[Stage | None]:
    return stages(report.trends.steps, report.trends.events, report.verdict)


def _lines(axes: "Axes", curves: dict[Change, list[float]]) -> None:
    for change, values in curves.items():
        look, marker = COLOURS[change], MARKERS[change]
        axes.plot(range(len(values)), values, label=CLASS_WORDS[change], color=look, marker=marker, markersize=4)


def _legend(figure: "Figure", panels: Sequence["Axes"], report: "Report") -> None:
    """Below the panels: their curves, and the stages where there are two."""
    handles: list[Artist] = []
    labels: list[str] = []
    for axes in panels:
        lines, names = axes.get_legend_handles_labels()
        handles, labels = [*handles, *lines], [*labels, *names]
    if found := [stage for stage in Stage if stage in _stages(report)]:
        from matplotlib.patches import Patch

        handles += [Patch(color=STAGES[stage], alpha=0.2) for stage in found]
        labels += [stage.value for stage in found]
    one_line = len(labels) <= 5 and figure.get_size_inches()[0] > 6
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels) if one_line else 3)


def _when_to_stop(figure: "Figure", report: "Report") -> None:
    """The two stages with held-out loss and accuracy; a dotted line at the last checkpoint worth keeping."""
    figure.set_size_inches(8.5, 3.4)
    left, right = figure.subplots(1, 2)
    trends, verdict = report.trends, report.verdict
    places = range(len(trends.steps))
    left.plot(places, trends.soft.effective_mean, color=INK, marker="o", markersize=4, label="interactions")
    if np.isfinite(trends.soft.effective_mean).any():  # N_eff is at least 1
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        left.set_yscale("log")
        left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        left.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:g}"))
        left.yaxis.set_minor_formatter(NullFormatter())
    _step_axis(left, report, "Interactions", "effective number, per probe")
    right.plot(places, trends.losses["eval"], color="#0072b2", marker="s", markersize=4, label="held-out loss")
    _step_axis(right, report, "Held-out rows", "loss, nats")
    drawn = [left, right]
    if np.isfinite(trends.losses.get(ACCURACY, [np.nan])).any():
        share = right.twinx()
        share.plot(places, trends.losses[ACCURACY], color="#d55e00", marker="^", markersize=4, label="accuracy")
        share.set(ylabel="accuracy", ylim=(0, 1))
        share.spines["right"].set_visible(True)
        drawn.append(share)
    end = verdict.stop_by
    if end is not None:
        words = str(verdict.decision)
        for axes in (left, right):
            line = axes.axvline(trends.steps.index(end), color=INK, linewidth=1, linestyle=":")
        line.set_label(f"{words} {end}")
    _legend(figure, drawn, report)


def _counts(figure: "Figure", report: "Report") -> None:
    figure.set_size_inches(8.5, 3.4)
    left, right = figure.subplots(1, 2)
    classes = report.trends.classes
    _lines(left, {change: part.count_mean for change, part in classes.items()})
    _lines(right, {change: part.strength_mean for change, part in classes.items()})
    _step_axis(left, report, "Number", "interactions per probe")
    _step_axis(right, report, "Strength Σ|I|", "log-odds per probe")
    _legend(figure, [left], report)


def _orders(figure: "Figure", report: "Report") -> None:
    shown = report.orders[1:] or report.orders
    figure.set_size_inches(8.5, 2.1 * len(shown) + 0.6)
    grid = figure.subplots(len(shown), 3, sharex=True, sharey=True, squeeze=False)
    for row, view in zip(grid, shown, strict=True):
        for axes, (change, orders) in zip(row, view.classes.items(), strict=True):
            places = [part.order for part in orders]
            positive, negative = [part.positive_mean for part in orders], [part.negative_mean for part in orders]
            colour = COLOURS[change]
            axes.bar(places, positive, color=colour, edgecolor=colour, label="positive")
            axes.bar(places, negative, color="none", edgecolor=colour, hatch="///", linewidth=0.8, label="negative")
            axes.axhline(0, color=INK, linewidth=0.6)
            count = sum(part.count_mean for part in orders)
            axes.set_title(f"step {view.step}: {CLASS_WORDS[change]}, {count:.1f} per probe")
            axes.set_xticks(places)
        row[0].set_ylabel("Σ effects, log-odds")
    for axes in grid[-1]:
        axes.set_xlabel("order (words)")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)


def _ratios(figure: "Figure", report: "Report") -> None:
    with_reference = bool(report.reference)
    figure.set_size_inches(8.5 if with_reference else 5.2, 3.4)
    panels = figure.subplots(1, 2 if with_reference else 1, squeeze=False)[0]
    classes = report.trends.classes
    _lines(panels[0], {change: part.uncancelled_mean for change, part in classes.items()})
    _step_axis(panels[0], report, "Uncancelled ratio |ΣI| / Σ|I|", "ratio")
    if with_reference:
        _lines(panels[1], {change: part.generalizable_mean for change, part in classes.items()})
        _step_axis(panels[1], report, f"Generalizable to {report.reference}", "share of the class")
    for axes in panels:
        axes.set_ylim(-0.03, 1.03)
    _legend(figure, [panels[0]], report)


def _backbone(figure: "Figure", report: "Report") -> None:
    figure.set_size_inches(8.5, 3.2)
    left, right = figure.subplots(1, 2)
    classes = list(report.trends.classes.items())
    values = [part.contribution_mean[-1] for _, part in classes]
    names, colours = [CLASS_WORDS[change] for change, _ in classes], [COLOURS[change] for change, _ in classes]
    left.bar(names, values, color=colours)
    left.axhline(0, color=INK, linewidth=0.6)
    left.set(title="Average contribution ΣI / count", ylabel="log-odds per interaction")
    rows = [row for row in report.backbone.rows if np.isfinite(row.cross_entropy_without_bias[-1])]
    by_name = {change.value: COLOURS[change] for change in Change} | {FULL: INK, BIAS: "#8c8c8c"}
    losses, shown = [row.cross_entropy_without_bias[-1] for row in rows], [row.name for row in rows]
    bars = right.barh(shown, losses, color=[by_name.get(name, "#e69f00") for name in shown])
    right.bar_label(bars, [f"{loss:.2f}" for loss in losses], padding=3)
    right.margins(x=0.15)
    right.invert_yaxis()
    right.set(title="Cross-entropy with only …, without b", xlabel="nats")


def _matching(figure: "Figure", report: "Report") -> None:
    history, last = report.evolution.history, report.evolution.history.steps.size - 1
    shown = history.probes[:SHOWN_PROBES]
    figure.set_size_inches(8.5, 3.2)
    panels = figure.subplots(1, len(shown) + 1, squeeze=False)[0]
    for axes, part in zip(panels, shown, strict=False):
        scores = part.scores[last].astype(np.float64)
        model = scores[0] + part.table.model(last, part.states)
        order = np.argsort(-scores, kind="stable")
        axes.plot(scores[order], color="#0072b2", linewidth=2.4, alpha=0.5, label="LLM, v")
        axes.plot(model[order], color=INK, linewidth=0.8, linestyle="--", label="logical model, h")
        axes.set(title=safe_text(part.probe.id, max_length=20), xlabel="states, sorted by v")
    panels[0].set_ylabel("score, log-odds")
    errors = []
    for part in history.probes:
        scores = part.scores[last].astype(np.float64)
        errors.append(metrics.matching_errors(scores, scores[0] + part.table.model(last, part.states)))
    pooled = np.concatenate(errors)
    pooled = pooled[np.isfinite(pooled)]
    panels[-1].hist(pooled, bins=30, color="#0072b2")
    panels[-1].set(title=f"Errors, n = {pooled.size}", xlabel="|v − h| / |v(N) − v(∅)|", ylabel="number of states")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)


def _sparsity(figure: "Figure", report: "Report") -> None:
    figure.set_size_inches(5.2, 3.2)
    axes = figure.subplots()
    history = report.evolution.history
    for index, colour, style in ((0, "#8c8c8c", "--"), (history.steps.size - 1, "#0072b2", "-")):
        curve = metrics.sparsity_curve([part.table.at(index) for part in history.probes])
        label = f"step {int(history.steps[index])}"
        axes.plot(np.linspace(0, 100, curve.size), curve, color=colour, linestyle=style, label=label)
    axes.set(xlabel="share of all interactions, %", ylabel="strength / strongest", ylim=(-0.02, 1.02))
    axes.legend()


def _prompt(figure: "Figure", report: "Report") -> None:
    history, last = report.evolution.history, report.evolution.history.steps.size - 1
    part = max(history.probes, key=lambda probe: float(probe.table.strongest[last]))
    effects, n = part.table.at(last), part.n_variables
    figure.set_size_inches(8.5, 4.2)
    for axes, relation in zip(figure.subplots(1, 2), Relation, strict=True):
        row = effects[relation]
        strongest = [int(i) for i in np.argsort(-np.abs(row), kind="stable")[:STRONGEST] if row[i]]
        joined = " ∧ " if relation is Relation.AND else " ∨ "
        subsets = [int(part.table.subsets[place]) for place in strongest]
        names = [safe_text(joined.join(part.words_of(subset)), max_length=34) for subset in subsets]
        values = [float(row[place]) for place in strongest]
        fill = ["#0072b2" if value > 0 else "none" for value in values]  # negative effects are hatched
        hatch = ["" if value > 0 else "///" for value in values]
        bars = axes.barh(range(len(values)), values, color=fill, edgecolor="#0072b2", hatch=hatch, linewidth=0.8)
        axes.bar_label(bars, [f"{value:+.2f}" for value in values], padding=2, fontsize=8)
        axes.set_yticks(range(len(values)), names, fontsize=8)
        axes.axvline(0, color=INK, linewidth=0.6)
        axes.margins(x=0.35)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        count = f"{len(values)} of {int((row != 0).sum())}"
        axes.set(title=f"{relation.name}, strongest {count}", xlabel="effect, log-odds")
    answer = f" → {safe_text(part.target_name, max_length=40)}"
    figure.suptitle(safe_text(f"{part.probe.id}: {part.probe.text}", max_length=90) + answer + f"   (n = {n} words)")
