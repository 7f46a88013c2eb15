"""The four views of a run as plain text for terminals, pipes and screen readers, and as one JSON object.

Headless: returns text without colour and writes nothing. The numbers are those of `views`, which
the explorer and the report use too; all text from the run is made safe to show.
"""

from collections.abc import Callable, Mapping
from functools import partial
from textwrap import wrap
from typing import Any

from sftscope.analysis.conclusions.verdict import verdict_of
from sftscope.analysis.course.events import Events
from sftscope.analysis.run.run_history import LOSSES
from sftscope.analysis.sets.evolution import CLASS_WORDS, Evolution
from sftscope.analysis.sets.noise_floor import FLOOR, largest_noise
from sftscope.analysis.sets.views import (
    Changes,
    Selection,
    Trends,
    as_plain,
    backbone,
    changes,
    orders_view,
    to_plain,
    trends,
)
from sftscope.analysis.trust.caveats import caveats
from sftscope.analysis.trust.certificates import measure_quality
from sftscope.analysis.trust.estimate_intervals import estimate_view
from sftscope.analysis.trust.noise_support import with_noise_support
from sftscope.analysis.trust.placebo import compare_placebos, sentence
from sftscope.files.json_text import lookup
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import first_of_each_kind, safe_text
from sftscope.reporting.chance_tables import (
    CHANCE_LEGEND,
    SUPPORT_LEGEND,
    chance_table,
    preserved_in_words,
    ratios_table,
)
from sftscope.reporting.document import Block, Heading, Listing, Text, plain_text
from sftscope.reporting.tables import (
    backbone_table,
    changes_table,
    estimate_lines,
    estimate_table,
    orders_table,
    quality_table,
    soft_table,
    spread,
    trends_table,
)

SCHEMA = "sftscope-show"
VERSION = 2
_REASON_WIDTH, _WIDTH = 72, 100
VIEWS = ("trends", "changes", "orders", "backbone")


def show_text(
    evolution: Evolution, selection: Selection, *, view: str = "all", max_rows: int = 20, support: bool = False
) -> str:
    """One view, or all of them, as text; long tables are cut to about `max_rows` rows.

    support: whether to say how surely each interaction has its class (see `noise_support`); slow.
    """
    if view != "all" and view not in VIEWS:
        raise SftscopeError(f"unknown view {safe_text(repr(view), max_length=60)}; known are all, {', '.join(VIEWS)}")
    builders: dict[str, Callable[[Evolution, Selection, int], list[Block]]] = {
        "trends": _trends,
        "changes": partial(_changes, support=support),
        "orders": _orders,
        "backbone": _backbone,
    }
    built = [build(evolution, selection, max_rows) for name, build in builders.items() if view in ("all", name)]
    return plain_text([*_head(evolution, selection), *(block for blocks in built for block in blocks)])


def show_json(evolution: Evolution, selection: Selection, *, support: bool = False) -> dict[str, Any]:
    """Every view at one step as plain values; an undefined number is None. support: as in `show_text`."""
    history = evolution.history
    over_time = as_plain(trends(evolution, selection))
    return {
        "schema": SCHEMA,
        "version": VERSION,
        **describe(evolution),
        "verdict": as_plain(verdict_of(evolution)),
        "step": int(history.steps[selection.now]),
        "base_step": int(history.steps[selection.base]),
        "probe": None if selection.probe is None else history.probes[selection.probe].probe.id,
        "events": over_time.pop("events"),
        "trends": over_time,
        "changes": as_plain(_set_diff(evolution, selection, support=support)),
        "orders": as_plain(orders_view(evolution, selection)),
        "backbone": as_plain(backbone(evolution, selection)),
        "quality": as_plain(measure_quality(evolution, selection)),
        "estimate": as_plain(estimate_view(evolution, selection)),
        "placebo": [as_plain(part) for part in compare_placebos(evolution, selection)],
        "left_out": list(history.left_out),
        "caveats": caveats(history),
    }


def describe(evolution: Evolution) -> dict[str, Any]:
    """What a run is, as plain values: its name, model, steps, and the threshold rule."""
    history, rule = evolution.history, evolution.rule
    return {
        "run": history.name,
        "model": model_name(history.run),
        "steps": history.steps.tolist(),
        "probes": [part.probe.id for part in history.probes],
        "tau": {
            "rule": rule.name,
            "value": rule.value,
            "hysteresis": evolution.hysteresis,
            "provisional": is_provisional(evolution),
            "by_probe": to_plain([limit.tolist() for limit in evolution.tau]),
        },
        "noise_floor": {
            "factor": FLOOR,
            "sigma_by_probe": [largest_noise(part.noise) for part in history.probes],
        },
    }


def is_provisional(evolution: Evolution) -> bool | None:
    """Whether τ can still move as steps arrive; None where the run does not say at which step it ends."""
    if evolution.rule.name != "max-run":
        return False
    steps = lookup(evolution.history.run, "settings", "training", "max_steps")
    return bool(evolution.history.steps[-1] < steps) if type(steps) is int and steps > 0 else None


def model_name(run: Mapping[str, Any]) -> str:
    """The base LLM's name in run.toml, without the folders before it; empty where it names none."""
    for table in (("model",), ("settings", "model")):
        for key in ("name", "path"):
            value = lookup(run, *table, key)
            if isinstance(value, str) and value:
                return value.rstrip("/").rpartition("/")[2] if value.startswith("/") else value
    return ""


def _event_lines(events: Events) -> list[str]:
    named = {"removal over": events.removal, "sparsest": events.sparsest, "emergence": events.emergence}
    lines = []
    for name, event in named.items():
        first, *rest = wrap(event.reason, _REASON_WIDTH)
        lines.append(f"{name:<12} {event.where or 'none':>12}  {first}")
        lines += [f"{'':<27}{line}" for line in rest]
    return lines


def _head(evolution: Evolution, selection: Selection) -> list[Block]:
    history = evolution.history
    probe = (
        (f"all {len(history.probes)} probes" if len(history.probes) > 1 else "1 probe")
        if selection.probe is None
        else f"probe {safe_text(history.probes[selection.probe].probe.id, max_length=40)}"
    )
    now, base = int(history.steps[selection.now]), int(history.steps[selection.base])
    model = safe_text(model_name(history.run), max_length=60)
    line = f"step {now} of {int(history.steps[-1])} against step {base} · {probe} · τ {evolution.settings}"
    line += " (provisional)" if is_provisional(evolution) else ""
    left_out = [f"left out: {reason}" for reason in first_of_each_kind(history.left_out)]
    return [
        Heading(f"{history.name}" + (f" · {model}" if model else ""), 1),
        Listing([*wrap(verdict_of(evolution).sentence, _WIDTH), line, *left_out, *caveats(history)]),
    ]


def _trends(evolution: Evolution, selection: Selection, max_rows: int) -> list[Block]:
    over_time = trends(evolution, selection)
    last = len(over_time.steps) - 1
    notes = _notes(over_time, selection)
    rows = spread(last + 1, [0, last, *notes], max_rows)
    estimate = estimate_view(evolution, selection)
    sampled: list[Block] = []
    if estimate is not None:
        sampled = [Listing(estimate_lines(estimate)), estimate_table(estimate, rows)]
    return [
        Heading("Trends: means over probes, without a threshold; classes as shares of the strength at the base step"),
        Listing(_event_lines(over_time.events)),
        soft_table(over_time, rows, notes),
        Heading(f"Sets under τ {evolution.rule}; n count, Σ|I| strength, γu uncancelled ratio"),
        trends_table(over_time, rows, notes),
        Listing(CHANCE_LEGEND),
        chance_table(over_time, rows),
        ratios_table(over_time, rows),
        *sampled,
        quality_table(measure_quality(evolution, selection), over_time),
    ]


def _set_diff(evolution: Evolution, selection: Selection, *, support: bool) -> Changes:
    diff = changes(evolution, selection)
    return with_noise_support(evolution, selection, diff) if support else diff


def _changes(evolution: Evolution, selection: Selection, max_rows: int, *, support: bool = False) -> list[Block]:
    diff = _set_diff(evolution, selection, support=support)
    counts = "   ".join(f"{diff.counts[change]} {name}" for change, name in CLASS_WORDS.items())
    chance = preserved_in_words(diff)
    weaker = len(diff.rows) - max_rows
    return [
        Heading(f"Changes: step {diff.base_step} → {diff.step}   {counts}"),
        *([Text(chance)] if chance else []),
        *([Text(SUPPORT_LEGEND)] if support else []),
        Listing([f"placebo: {sentence(part)}" for part in compare_placebos(evolution, selection)]),
        *([changes_table(diff.rows[:max_rows], diff.base_step, diff.step)] if diff.rows else []),
        *([Text(f"… and {weaker} weaker ones")] if weaker > 0 else []),
    ]


def _orders(evolution: Evolution, selection: Selection, max_rows: int) -> list[Block]:
    orders = orders_view(evolution, selection)
    title = f"Orders: step {orders.base_step} → {orders.step}; means over probes; "
    return [Heading(f"{title}Σ+, Σ- positive and negative effects, n count"), orders_table(orders)]


def _backbone(evolution: Evolution, selection: Selection, max_rows: int) -> list[Block]:
    view = backbone(evolution, selection)
    now, losses = selection.now, [name for name in LOSSES if name in view.losses]
    return [
        Heading("Backbone: cross-entropy (nats, mean over probes) with these interactions only"),
        *([Text(view.note)] if view.note else []),
        backbone_table(view, sorted({selection.base, now, len(view.steps) - 1})),
        Listing([f"{name} loss at step {view.steps[now]}: {view.losses[name][now]:.3f}" for name in losses]),
    ]


def _notes(over_time: Trends, selection: Selection) -> dict[int, str]:
    """A word next to the steps that matter."""
    notes: dict[int, list[str]] = {selection.base: ["base"]}
    for step, first in over_time.same_weights.items():
        notes.setdefault(over_time.steps.index(step), []).append(f"weights of step {first}")
    events = over_time.events
    named = {"removal over": events.removal, "sparsest": events.sparsest, "emergence": events.emergence}
    for name, event in named.items():
        if event.index is not None:
            notes.setdefault(event.index, []).append(name)
    notes.setdefault(selection.now, []).append("this step")
    return {index: ", ".join(words) for index, words in notes.items()}
