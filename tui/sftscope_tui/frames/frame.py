"""From the view state and what is derived from the run to one frame: a slice for every pane that is shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sftscope.analysis import DEFAULT_HYSTERESIS
from sftscope.analysis.comparison.baseline_llm import shared_probes
from sftscope.analysis.run.run_history import ACCURACY, LOSSES, RunHistory
from sftscope.analysis.sets.evolution import Change
from sftscope.analysis.sets.one_masked_state import masked_state
from sftscope.analysis.sets.views import Trends
from sftscope.reporting.show import is_provisional, model_name
from sftscope.store import RunFolder
from sftscope_tui.contents.derived import Derived, Reading
from sftscope_tui.contents.open_run import RunHeadline, Session
from sftscope_tui.drawing.numbers import small
from sftscope_tui.drawing.safe_lines import shown
from sftscope_tui.frames.screen import Frame
from sftscope_tui.panes.backbone import BackboneSlice
from sftscope_tui.panes.changes import ChangesSlice
from sftscope_tui.panes.compare import NO_SECOND_RUN, NOTHING_SHARED, CompareSlice
from sftscope_tui.panes.orders import OrdersSlice
from sftscope_tui.panes.probe import ProbeSlice
from sftscope_tui.panes.raw import RawSlice, column, datasets
from sftscope_tui.panes.runs import RunLine, RunsSlice
from sftscope_tui.panes.trends import TrendsSlice
from sftscope_tui.state.view_state import OrdersOf, View, ViewState, nearest_index
from sftscope_tui.widgets.step_bar import StepBarContent


@dataclass(frozen=True, eq=False)
class Scene:
    """All that a frame is made of. other: the second run; runs: what the Runs view lists."""

    state: ViewState
    session: Session
    derived: Derived
    reading: Reading
    other: Session | None = None
    runs: Sequence[RunLine] = ()
    note: str = ""

    @property
    def history(self) -> RunHistory:
        """The run as far as it is read."""
        return self.derived.history

    @property
    def probe(self) -> int:
        """The probe that the Probe view shows."""
        return self.state.probe or 0


def build_frame(scene: Scene, views: Sequence[View]) -> Frame:
    """What the screen shows; slices that are still computed are left out."""
    state, reading = scene.state, scene.reading
    stale = reading.evolution.rule != state.rule
    provisional = "~" if is_provisional(reading.evolution) else ""
    return Frame(
        run=shown(state.run, 40),
        model=shown(model_name(scene.history.run), 60),
        place=f"step {state.step_number} ({state.step + 1}/{len(state.steps)})"
        + _following(scene)
        + _effective(state, reading),
        probe=_probe_name(state, scene.history),
        rule=f"{state.rule.name} {state.rule.value:g}{provisional}"
        + _sets(state)
        + (" …" if stale else "")
        + _label(scene.history),
        steps=StepBarContent(
            state.steps,
            state.step,
            state.pinned,
            reading.events,
            scene.derived.verdict(reading),
            partial=scene.session.last.pending > 0,
        ),
        losses=_losses(state, scene.history),
        view=state.view,
        focus=state.focus,
        slices={view: _slice(view, scene) for view in views},
        zoom=state.zoom,
        alert=_alert(scene.session, scene.history.left_out),
        note=scene.note,
    )


def bare_frame(state: ViewState, session: Session, runs: Sequence[RunLine], note: str) -> Frame:
    """The list of runs, where the one that is open has nothing to show."""
    return Frame(
        run=session.name,
        model="",
        place="",
        probe="",
        rule=str(state.rule),
        steps=None,
        losses=(),
        view=View.RUNS,
        focus=View.RUNS,
        slices={View.RUNS: _runs(state, runs)},
        alert=_alert(session),
        note=note,
    )


def n_rows(view: View, scene: Scene) -> int:
    """Number of rows of a view that has a cursor."""
    if view is View.RUNS:
        return len(scene.runs)
    if view is View.RAW:
        record = scene.derived.record(RunFolder(scene.session.path), scene.state.step_number)
        if record is None or isinstance(record, Exception):
            return 0
        return len(column(record, datasets(record.sample is not None)[scene.state.dataset]))
    if view is View.COMPARE:
        found = _compare(scene).diff
        return found.side.size if found is not None else 0
    return scene.derived.arrangement(scene.reading, scene.state).size


def _slice(view: View, scene: Scene) -> Any:
    state, derived, reading = scene.state, scene.derived, scene.reading
    n_probes = len(state.probes) if state.probe is None else 1
    match view:
        case View.TRENDS:
            trends = derived.trends(reading, state, _other_reading(scene))
            other = scene.other.name if scene.other is not None else ""
            estimate = derived.estimate(reading, state)
            now = trends and nearest_index(trends.steps, state.step_number)
            return trends and TrendsSlice(trends, now or 0, n_probes, other, estimate)
        case View.CHANGES:
            table, rows = derived.table(reading, state), derived.arrangement(reading, state)
            return ChangesSlice(
                table, rows, state.row, state.row_sort, state.filter, state.probe is None, state.support
            )
        case View.ORDERS:
            soft = derived.soft_orders(reading, state) if state.orders_of is OrdersOf.STRENGTHS else None
            return OrdersSlice(derived.orders(reading, state), state.orders_of, n_probes, soft)
        case View.BACKBONE:
            backbone = derived.backbone(reading, state)
            if backbone is None:
                return None
            now = nearest_index(backbone.steps, state.step_number)
            return BackboneSlice(backbone, now, reading.events.sparsest.index, n_probes)
        case View.PROBE:
            return _probe(scene)
        case View.COMPARE:
            return _compare(scene)
        case View.RUNS:
            return _runs(state, scene.runs)
        case View.RAW:
            return _raw(scene)


def _probe(scene: Scene) -> ProbeSlice:
    state, evolution, probe = scene.state, scene.reading.evolution, scene.probe
    part = scene.history.probes[probe]
    every = (1 << part.n_variables) - 1
    masked = state.masked_words(probe) & every
    return ProbeSlice(
        part=part,
        steps=state.steps,
        now=state.step,
        boundary=scene.reading.events.sparsest.index,
        table=scene.derived.table(scene.reading, state),
        rows=scene.derived.arrangement(scene.reading, state),
        cursor=state.row,
        masked=masked,
        word=min(state.word, part.n_variables - 1),
        state=masked_state(evolution, probe, state.step, every & ~masked),
        whole=masked_state(evolution, probe, state.step, every),
        matching=scene.derived.matching(scene.reading, probe, state.step),
        wants_support=state.support,
    )


def _compare(scene: Scene) -> CompareSlice:
    state, other = scene.state, scene.other
    if other is None:
        return CompareSlice("", NO_SECOND_RUN)
    theirs = other.read_under(state.rule)
    if theirs is None:
        return CompareSlice(other.name, other.failure or f"reading {other.name} …")
    pairs = shared_probes(scene.history, theirs.evolution.history)
    if not pairs:
        return CompareSlice(other.name, NOTHING_SHARED)
    diff = scene.derived.diff(scene.reading, state, theirs)
    curves = scene.derived.trends(scene.reading, state, theirs)
    return CompareSlice(
        other.name,
        shares=_shares(curves, state.step_number) if curves is not None else (),
        last_step=int(theirs.evolution.history.steps[-1]),
        diff=diff,
        jaccard=scene.derived.jaccard(scene.reading, theirs),
        probes=scene.history.probes,
        shared=len(pairs),
        linked=state.linked,
        now=state.step,
        cursor=min(state.row_of(View.COMPARE), max(diff.side.size - 1, 0)),
    )


def _other_reading(scene: Scene) -> Reading | None:
    """The second run, where there is one that can be compared."""
    return scene.other.read_under(scene.state.rule) if scene.other is not None else None


def _shares(trends: Trends, step: int) -> list[tuple[Change, float, float]]:
    """ρ of each class at the step and what it would be by chance; none where it is not defined for any step."""
    now = nearest_index(trends.steps, step)
    if not trends.has_reference:
        return []
    classes = trends.classes.items()
    return [(change, part.generalizable_mean[now], part.generalizable_by_chance[now]) for change, part in classes]


def _runs(state: ViewState, runs: Sequence[RunLine]) -> RunsSlice:
    return RunsSlice(runs, min(state.row_of(View.RUNS), max(len(runs) - 1, 0)))


def _raw(scene: Scene) -> RawSlice:
    state = scene.state
    record = scene.derived.record(RunFolder(scene.session.path), state.step_number)
    why = shown(record) if isinstance(record, Exception) else ""
    found = None if record is None or isinstance(record, Exception) else record
    size = 1 if found is None else len(column(found, datasets(found.sample is not None)[state.dataset]))
    row = min(state.row_of(View.RAW), size - 1)
    return RawSlice(state.step_number, found, why, state.dataset, row, scene.history.probes)


def _following(scene: Scene) -> str:
    """Whether new steps are followed, or how many came while they were not."""
    if scene.state.follow:
        return " follow"
    return f" +{scene.state.unseen} new" if scene.state.unseen else ""


def _probe_name(state: ViewState, history: RunHistory) -> str:
    if state.probe is None:
        return f"all {len(state.probes)} probes" if len(state.probes) > 1 else "1 probe"
    part = history.probes[state.probe]
    return f"{shown(part.probe.id, 12)} → {shown(part.target_name, 16)}"


def _sets(state: ViewState) -> str:
    """How the sets are made, where not as by default."""
    factor = "" if state.hysteresis == DEFAULT_HYSTERESIS else f" h {state.hysteresis:g}"
    return factor + (" trajectory" if state.trajectory else "")


def _label(history: RunHistory) -> str:
    """That interactions are estimates, wherever one is."""
    return "  ESTIMATED" if any(part.is_estimated for part in history.probes) else ""


def _effective(state: ViewState, reading: Reading) -> str:
    """N_eff at the present step, of the probe looked at or on average; empty where it is undefined."""
    numbers = reading.effective if state.probe is None else reading.effective[[state.probe]]
    known = numbers[:, state.step][np.isfinite(numbers[:, state.step])]
    return f"  N_eff {small(float(known.mean()))}" if known.size else ""


def _losses(state: ViewState, history: RunHistory) -> list[tuple[str, str]]:
    names = [name for name in (*LOSSES, ACCURACY) if name in history.losses]
    return [(name, small(float(history.losses[name][state.step]))) for name in names]


def _alert(session: Session, known: Sequence[str] = ()) -> str:
    """One line: what is still to come, and what was left out."""
    grown = session.last
    left_out = grown.left_out if len(grown.left_out) > len(known) else known
    parts: list[str] = []
    if grown.pending:
        parts.append(f"reading step files: {grown.total - grown.pending} of {grown.total}")
    elif grown.writer is not None and grown.writer.sentence:
        parts.append(grown.writer.sentence)
    if grown.failure:
        parts.append(grown.failure)
    if left_out:
        count = len(left_out)
        files = "1 step file is" if count == 1 else f"{count} step files are"
        name, _, reason = left_out[-1].partition(": ")
        parts.append(f"! {files} left out: {shown(name.rsplit('/', 1)[-1], 60)}: {shown(reason, 200)}")
    return "  ".join(f" {part}" for part in parts)


def run_line(path: Path, session: Session, other: Session | None, headline: RunHeadline | None) -> RunLine:
    """A row of the Runs view; headline: None while it is read."""
    here = path.absolute()
    return RunLine(
        name=shown(here.name, 60),
        where=shown(here, 200),
        is_open=here == session.path.absolute(),
        is_compared=other is not None and here == other.path.absolute(),
        headline=headline.text if headline is not None else None,
        error=headline is not None and headline.failed,
    )
