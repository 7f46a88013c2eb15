"""The explorer: scrub through the steps of a run and see what fine-tuning removed, kept and invented.

What each key asks for and the mouse points at; what moves is in `moving`, the life of the app and its painting in
`explorer_base`.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from textual.app import SystemCommand
from textual.screen import Screen

from sftscope.analysis.comparison.run_pairs import linked_step
from sftscope.analysis.sets.thresholds import ThresholdRule
from sftscope.analysis.trust.noise_support import why_no_support
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_lines
from sftscope.store import RunFolder
from sftscope.store.sharing.training_requests import Request, ask, why_not_asked
from sftscope_tui.app.explorer_base import MayAskJob, NoticeJob
from sftscope_tui.app.exports import copy_file, default_paths, export_job, sheet_of
from sftscope_tui.app.moves import MovingExplorer
from sftscope_tui.contents.background import Urgency
from sftscope_tui.contents.row_tracing import Origins, TraceJob, trace_job
from sftscope_tui.dialogs.ask_training import AskDialog
from sftscope_tui.dialogs.dialogs import ExportDialog, ExportWish, TextDialog, ThresholdDialog
from sftscope_tui.dialogs.origins import OriginsDialog
from sftscope_tui.dialogs.prompt import Prompt
from sftscope_tui.dialogs.texts import full_row_text, help_text, problems_text, sensitivity_text, verdict_text
from sftscope_tui.frames.screen import ExplorerScreen
from sftscope_tui.panes.pane import Pane
from sftscope_tui.panes.raw import datasets
from sftscope_tui.state.command_line import command_for
from sftscope_tui.state.keys import FILTER_HELP, KEYS
from sftscope_tui.state.view_state import (
    View,
    at_step,
    go_to,
    mask_words,
    move_row,
    move_word,
    toggle_link,
    toggle_support,
    with_filter,
    with_rule,
    with_sort,
)
from sftscope_tui.widgets.bars import tab_at
from sftscope_tui.widgets.lines import Lines
from sftscope_tui.widgets.step_bar import StepBar

MOST_COPIED = 3_000  # bytes that go through OSC 52: some terminals drop more, some drop the connection


class ExplorerApp(MovingExplorer):
    """The app. The first path is the run folder, the second one to compare with."""

    def action_go_to(self) -> None:
        """Ask for a step number."""
        if self.derived is not None:
            first, last = self.state.steps[0], self.state.steps[-1]
            self._open_prompt("step", "", f"{first} … {last}, enter")

    def action_filter(self) -> None:
        """Ask for a filter of the rows; it takes effect while it is typed."""
        if self.derived is not None and self.explorer is not None:
            shown = self.explorer.panes_for(self.state.view, self.state.zoom)
            if View.CHANGES not in shown and View.PROBE not in shown:
                self.action_turn("changes")
            self._open_prompt("filter", self.state.filter, FILTER_HELP)

    def on_prompt_typed(self, typed: Prompt.Typed) -> None:
        """What was typed at the foot of the screen."""
        if typed.purpose == "filter":
            if typed.text != self.state.filter:
                self._identity = None
            self.become(with_filter(self.state, typed.text))
        elif typed.final and typed.text:
            self._to_step(int(typed.text))
        if typed.final:
            self.paint()

    # ---------------------------------------------------------------- rows, words, runs

    def action_enter(self) -> None:
        """Open the run under the cursor, or show the row in full."""
        if self.state.view is not View.RUNS:
            self.action_full_row()
        elif self.runs():
            self.open_run(self.run_paths[self._run_row()])

    def action_space(self) -> None:
        """Take a word out or put it back, compare with a run, or show the row in full."""
        scene = self.scene()
        if self.state.view is View.RUNS and self.runs():
            path = self.run_paths[self._run_row()]
            again = self.other is not None and self.other.path.absolute() == path.absolute()
            self.compare_with(None if again else path)
        elif self.state.view is View.PROBE and scene is not None:
            part = scene.history.probes[scene.probe]
            word = 1 << min(self.state.word, part.n_variables - 1)
            masked = self.state.masked_words(scene.probe)
            self.become(mask_words(self.state, scene.probe, masked ^ word))
        else:
            self.action_full_row()

    def action_mask(self, how: str) -> None:
        """Put all words back, or swap those that are in with those that are out."""
        scene = self.scene()
        if scene is not None and self.state.view is View.PROBE:
            every = (1 << scene.history.probes[scene.probe].n_variables) - 1
            masked = every & ~self.state.masked_words(scene.probe) if how == "swap" else 0
            self.become(mask_words(self.state, scene.probe, masked))

    def action_words(self, by: int) -> None:
        """The next word of the probe, or the next dataset of the file."""
        scene = self.scene()
        if scene is not None and self.state.view is View.PROBE:
            self.become(move_word(self.state, by, scene.history.probes[scene.probe].n_variables))
        elif scene is not None and self.state.view is View.RAW:
            is_sampled = any(part.is_estimated for part in scene.history.probes)
            chosen = (self.state.dataset + by) % len(datasets(is_sampled))
            self.become(move_row(replace(self.state, dataset=chosen), -(10**9), 1, View.RAW))

    def action_link(self) -> None:
        """Let the second run go along with this one, or hold it where it is."""
        theirs = self.other.reading if self.other is not None else None
        if theirs is None or self.derived is None:
            self.tell("no second run: press 7 for the runs, then space to compare with one")
            return
        steps = theirs.evolution.history.steps
        self.become(toggle_link(self.state, int(steps[linked_step(steps, self.state.step_number)])))

    # ---------------------------------------------------------------- dialogs

    def action_threshold(self) -> None:
        """Choose τ."""
        if self.derived is not None:
            self.push_screen(ThresholdDialog(self.state.rule, self.inks), self._set_rule)

    def action_full_row(self) -> None:
        """The interaction under the cursor, in full."""
        if self.reading is None or self.derived is None:
            return
        table = self.derived.table(self.reading, self.state)
        identity = self.derived.under_cursor(self.reading, self.state)
        row = table.find(identity) if identity else None
        if row is not None:
            now, base = self.state.step, self.state.base
            text = full_row_text(self.reading.evolution, table, row, now, base, self.inks, self.glyphs)
            self.push_screen(TextDialog("interaction", text))

    def action_origins(self) -> None:
        """The training rows behind the interaction under the cursor."""
        scene = self.scene()
        job = trace_job(scene.session.path, scene.derived, scene.reading, scene.state) if scene is not None else None
        if scene is not None and job is not None:
            table = scene.derived.table(scene.reading, scene.state)
            self.tell("looking for training rows; opens when ready")
            self.background.request(job, partial(self.tracing.behind, table, job.identity), Urgency.SHOWN)

    def show_origins(self, job: TraceJob, found: Origins | str) -> None:
        """Open them, where the cursor is still where they were asked for."""
        scene = self.scene()
        if scene is None or not isinstance(self.screen, ExplorerScreen):
            return
        if job == trace_job(scene.session.path, scene.derived, scene.reading, scene.state):
            self.tell(found if isinstance(found, str) else "")
            if not isinstance(found, str):
                self.push_screen(OriginsDialog(found, self.inks))

    def action_support(self) -> None:
        """Say how surely each row has its class, or stop computing it."""
        if self.derived is None:
            return
        if why := why_no_support():
            self.tell(why)
            return
        self.become(toggle_support(self.state))
        self.tell(
            "support: decomposing 8 noisy copies a probe; rows fill in as they are done" if self.state.support else ""
        )

    def action_sensitivity(self) -> None:
        """The headline under every rule for τ."""
        if self.derived is None or self.reading is None:
            return
        rows = self.derived.sensitivity(self.reading)
        if self._is_there(rows, "sensitivity", "app.sensitivity") and rows is not None:
            self.push_screen(TextDialog("how much depends on τ", sensitivity_text(rows, self.inks)))

    def action_verdict(self) -> None:
        """The verdict with its evidence."""
        if self.derived is None or self.reading is None:
            return
        verdict = self.derived.verdict(self.reading)
        if self._is_there(verdict, "trends", "app.verdict") and verdict is not None:
            self.push_screen(TextDialog("verdict", verdict_text(verdict, self.inks)))

    def _is_there(self, content: object, name: str, action: str) -> bool:
        """Whether a dialog's content is computed; where not, `action` is tried again when it may be.

        name: what it is computed from, which may be what cannot be computed.
        """
        missing = content is None and self.derived is not None and self.derived.is_missing(name)
        self._awaited = "" if content is not None or missing else action
        self.tell("" if content is not None else "cannot be computed" if missing else "computing; opens when ready")
        return content is not None

    def action_problems(self) -> None:
        """Which step files were left out."""
        known = self.derived.history.left_out if self.derived else ()
        left_out = max(known, self.session.last.left_out, key=len)
        self.push_screen(TextDialog("left out", problems_text(left_out, self.inks)))

    def action_help(self) -> None:
        """All keys."""
        self.push_screen(TextDialog("keys", help_text(self.inks)))

    # ---------------------------------------------------------------- copy and export

    def action_copy(self, what: str) -> None:
        """Copy the view or the command: by OSC 52 where it is small, always into a file."""
        scene = self.scene()
        if scene is None or self.explorer is None:
            return
        if what == "command":
            other = self.other.path if self.other else None
            text = command_for(self.state, self.session.path, other, train=self.tracing.train) + "\n"
        else:
            panes = [pane for pane in self.explorer.query(Pane) if pane.view is self.state.focus]
            text = safe_lines(panes[0].text) + "\n"
        size = len(text.encode())
        if size <= MOST_COPIED:
            self.copy_to_clipboard(text)
        said = "copied" if size <= MOST_COPIED else f"{size} bytes are too many for the clipboard"
        self.background.request(NoticeJob(f"copy {what}"), partial(copy_file, text, said), Urgency.SHOWN)

    def action_export(self) -> None:
        """Choose what to export."""
        if self.scene() is not None:
            paths = default_paths(self.state)
            self.push_screen(ExportDialog(paths, self.inks), self._export)

    def _export(self, wish: ExportWish | None) -> None:
        scene = self.scene()
        if wish is None or scene is None:
            return
        self.tell(f"writing {wish.path} …")
        try:
            tell = partial(self.background.tell, NoticeJob("progress"))
            job = export_job(wish, scene.reading.evolution, sheet_of(scene), self.tracing.known, tell)
        except SftscopeError as error:
            self.tell(str(error))
            return
        self.background.request(NoticeJob(f"export {wish.form}"), job, Urgency.SHOWN)

    # ---------------------------------------------------------------- the mouse, which nothing needs

    def on_lines_clicked(self, click: Lines.Clicked) -> None:
        """A step, a tab, a column's head or a row; the row under the cursor once more is enter."""
        widget = click.widget
        if isinstance(widget, StepBar):
            index = widget.step_at(click.x, click.y)
            self.become(at_step(self.state, index) if index is not None else self.state)
        elif widget.id == "tabs" and (view := tab_at(click.x)) is not None:
            self.action_turn(view.value.lower())
        elif isinstance(widget, Pane) and (self.derived is not None or widget.view is View.RUNS):
            self._clicked_pane(widget, click)

    def _clicked_pane(self, pane: Pane[Any], click: Lines.Clicked) -> None:
        self.become(replace(self.state, focus=pane.view))
        row, sort = pane.row_at(click.y), pane.sort_at(click.x, click.y)
        if sort is not None:
            self._identity = None
            self.become(with_sort(self.state, sort))
        elif row is not None and row == self.state.row_of(pane.view):
            self.action_enter()
        elif row is not None:
            self.action_rows(row - self.state.row_of(pane.view))

    def on_lines_wheeled(self, wheel: Lines.Wheeled) -> None:
        """Rows where there are some, steps elsewhere."""
        if isinstance(wheel.widget, Pane) and wheel.widget.lists_rows:
            self.become(replace(self.state, focus=wheel.widget.view))
            self.action_rows(3 * wheel.by)
        elif isinstance(wheel.widget, Pane | StepBar):
            self.action_turn("next_step" if wheel.by > 0 else "previous_step")

    # ---------------------------------------------------------------- what is asked of the training

    def action_ask(self) -> None:
        """Choose what to ask of the training that writes this run; only where one listens."""
        job = partial(why_not_asked, RunFolder(self.session.path))
        self.background.request(MayAskJob(self.session.path), job, Urgency.SHOWN)

    def may_ask(self, path: Path, why: str) -> None:
        """It is known whether a training listens: choose, where it is that of the run that is shown."""
        if why:
            self.tell(why)
        elif path == self.session.path:
            self.push_screen(AskDialog(self.inks), self._ask)

    def _ask(self, request: Request | None) -> None:
        if request is None:
            return
        verdict = self.derived.verdict(self.reading) if self.derived and self.reading else None
        session, reason = self.session, verdict.sentence if verdict else ""

        def asked() -> str:
            ask(RunFolder(session.path), request, reason)
            session.has_asked = True
            return f"asked for: {request}; the training does it after its present step"

        self.background.request(NoticeJob(f"ask {request}"), asked, Urgency.SHOWN)

    # ---------------------------------------------------------------- the rest

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Every row of the key table, and the themes."""
        for row in KEYS:
            if row.action != "app.command_palette":
                yield SystemCommand(row.help, row.shown, lambda action=row.action: self._run(action))
        yield SystemCommand("theme", "colours: dark, light, ansi, high-contrast …", self.action_change_theme)

    def _run(self, action: str) -> None:
        self.call_later(self.run_action, action)

    def _open_prompt(self, purpose: str, text: str, hint: str) -> None:
        self._note = ""
        if self.explorer is not None:
            self.explorer.query_one(Prompt).open("step" if purpose == "step" else "filter", text, hint)
            self.paint()

    def _set_rule(self, rule: ThresholdRule | None) -> None:
        if rule is not None:
            self.forget_headlines()
            self.become(with_rule(self.state, rule))

    def _run_row(self) -> int:
        return min(self.state.row_of(View.RUNS), len(self.run_paths) - 1)

    def _to_step(self, number: int) -> None:
        turned = go_to(self.state, number)
        self.become(turned)
        if turned.step_number != number:
            self.tell(f"step {number} was not extracted; the nearest is {turned.step_number}")
