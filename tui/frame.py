"""From the view state and what is derived from the run to one frame: a slice for every pane that is shown."""

from collections.abc import Sequence
from typing import Any

from engine.analysis.history import RunHistory
from tui.derived import Derived, Reading
from tui.number_text import small
from tui.panes.backbone import BackboneSlice
from tui.panes.changes import ChangesSlice
from tui.panes.orders import OrdersSlice
from tui.panes.trends import TrendsSlice
from tui.safe_lines import shown
from tui.screen import Frame
from tui.state import View, ViewState
from tui.widgets.step_bar import StepBarContent


def build_frame(state: ViewState, derived: Derived, reading: Reading, views: Sequence[View], note: str = "") -> Frame:
    """What the screen shows in `state`; slices that are still computed are left out."""
    history = derived.history
    slices = {view: _slice(view, state, derived, reading) for view in views}
    stale = reading.evolution.rule != state.rule
    return Frame(
        run=shown(state.run, 40),
        model=_model_name(history),
        place=f"step {state.step_number} ({state.step + 1}/{len(state.steps)})",
        probe=_probe_name(state, history),
        rule=f"{state.rule.name} {state.rule.value:g}" + (" …" if stale else ""),
        steps=StepBarContent(state.steps, state.step, state.pinned, reading.boundary),
        losses=_losses(state, history),
        view=state.view,
        focus=state.focus,
        slices=slices,
        alert=_alert(history),
        note=note,
    )


def _slice(view: View, state: ViewState, derived: Derived, reading: Reading) -> Any:
    n_probes = len(state.probes) if state.probe is None else 1
    if view is View.TRENDS:
        trends = derived.trends(reading, state)
        return trends and TrendsSlice(trends, state.step, n_probes)
    if view is View.CHANGES:
        table, rows = derived.table(reading, state), derived.arrangement(reading, state)
        return ChangesSlice(table, rows, state.row, state.sort, state.filter, state.probe is None)
    if view is View.ORDERS:
        return OrdersSlice(derived.orders(reading, state), state.order_counts, n_probes)
    backbone = derived.backbone(reading, state)
    return backbone and BackboneSlice(backbone, state.step, reading.boundary.index, n_probes)


def _model_name(history: RunHistory) -> str:
    model = history.run.get("model")
    return shown(model.get("name", ""), 60) if isinstance(model, dict) else ""


def _probe_name(state: ViewState, history: RunHistory) -> str:
    if state.probe is None:
        return f"all {len(state.probes)} probes"
    part = history.probes[state.probe]
    return f"{shown(part.probe.id, 12)} → {shown(part.target.get('text', part.probe.response), 16)}"


def _losses(state: ViewState, history: RunHistory) -> list[tuple[str, str]]:
    names = [name for name in ("train", "eval") if name in history.losses]
    return [(name, small(float(history.losses[name][state.step]))) for name in names]


def _alert(history: RunHistory) -> str:
    if not history.left_out:
        return ""
    count = len(history.left_out)
    files = "1 step file is" if count == 1 else f"{count} step files are"
    name, _, reason = history.left_out[0].partition(": ")
    return f" ! {files} left out: {shown(name.rsplit('/', 1)[-1], 60)}: {shown(reason, 200)}"
