"""The explorer: scrub through the steps of a run and see what fine-tuning removed, kept and invented.

Holds the view state, turns it by keys, and has it painted: at once where there is time, at most so many
times a second where a key is held. Reads no file itself and never imports PyTorch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import RenderableType
from textual._compositor import ChopsUpdate
from textual.app import App, SystemCommand
from textual.filter import LineFilter
from textual.screen import Screen

from engine.analysis.history import RunHistory
from engine.analysis.thresholds import ThresholdRule
from engine.errors import SftscopeError
from tui.change_table import Identity
from tui.derived import Derived, Reading
from tui.dialogs import TextDialog, ThresholdDialog
from tui.frame import build_frame
from tui.keys import FILTER_HELP, KEYS
from tui.loader import Done, Loader, load_job
from tui.narrow_update import NarrowUpdate
from tui.palette import ON_DARK, ON_LIGHT, Glyphs, Inks
from tui.panes.changes import ChangesPane
from tui.prompt import Prompt
from tui.safe_lines import ControlFilter, shown
from tui.screen import ExplorerScreen
from tui.state import (
    TURNS,
    View,
    ViewState,
    go_to,
    move_row,
    next_change,
    next_pane,
    with_filter,
    with_rule,
)
from tui.texts import full_row_text, help_text, problems_text

PAINTS_A_SECOND = 15
_HISTORY = "history"


class ExplorerApp(App[None]):
    """The app. path: the run folder. step: the step number to begin at, the last where None."""

    CSS_PATH = "sftscope.tcss"
    TITLE = "sftscope"
    COMMAND_PALETTE_BINDING = "ctrl+p"

    def __init__(self, path: Path, *, step: int | None = None, glyphs: str = "braille") -> None:
        super().__init__()
        self.path = path
        self.state = ViewState(run=path.absolute().name)
        self.glyphs = Glyphs(glyphs)
        self.loader = Loader(self)
        self.derived: Derived | None = None
        self.reading: Reading | None = None
        self._first_step = step
        self._failure = ""
        self._note = ""
        self._identity: Identity | None = None
        self._control_filter = ControlFilter()
        self._painted_at = 0.0
        self._paint_waits = False

    # ---------------------------------------------------------------- the life of the app

    def get_default_screen(self) -> Screen[Any]:
        """The explorer's screen."""
        return ExplorerScreen()

    def get_line_filters(self) -> Sequence[LineFilter]:
        """The second gate against control characters stands before the terminal's own filters."""
        return [self._control_filter, *super().get_line_filters()]

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        """Partial updates are narrowed on their way to the terminal."""
        narrow = NarrowUpdate.of(renderable) if isinstance(renderable, ChopsUpdate) else renderable
        super()._display(screen, narrow)

    def on_mount(self) -> None:
        """Show that something is coming, then read."""
        self.theme_changed_signal.subscribe(self, lambda _theme: self.paint())
        self.loader.request(_HISTORY, lambda: load_job(self.path))

    def on_unmount(self) -> None:
        """Let the thread end."""
        self.loader.stop()

    def on_done(self, done: Done) -> None:
        """A result of the loader: the run, a reading of it, or curves over the steps."""
        self.loader.received(done)
        if isinstance(done.error, SftscopeError):
            self._failure = shown(done.error)
        elif done.error is not None:
            raise done.error
        elif done.key == _HISTORY:
            self._begin(done.value)
        elif self.derived is not None:
            self.derived.keep(done)
        self.paint()

    def _begin(self, history: RunHistory) -> None:
        self.derived = Derived(history, self.loader)
        self.state = replace(
            self.state,
            run=history.name,
            steps=tuple(int(step) for step in history.steps),
            probes=tuple(probe.probe.id for probe in history.probes),
        )
        self.state = TURNS["last_step"](self.state)
        if self._first_step is not None:
            self._to_step(self._first_step)

    # ---------------------------------------------------------------- painting

    @property
    def inks(self) -> Inks:
        """The styles for the present theme."""
        return ON_DARK if self.current_theme.dark else ON_LIGHT

    @property
    def settled(self) -> bool:
        """Whether everything that was asked for is computed and painted."""
        return not self.loader.busy and not self._paint_waits

    def become(self, state: ViewState) -> None:
        """Take on another state, and have it painted."""
        if state == self.state:
            return
        self.state, self._note = state, ""
        wait = self._painted_at + 1 / PAINTS_A_SECOND - monotonic()
        if wait <= 0:
            self.paint()
        elif not self._paint_waits:
            self._paint_waits = True
            self.set_timer(wait, self.paint)

    def paint(self) -> None:
        """Show the present state."""
        self._paint_waits = False
        screen = self.explorer
        if screen is None or not screen.is_mounted:
            return
        if self._failure:
            screen.show_notice(self._failure, self.inks, error=True)
            return
        if self.derived is not None:
            self.reading = self.derived.reading(self.state.rule) or self.reading
        if self.derived is None or self.reading is None:
            screen.show_notice(f"loading {shown(self.path.absolute().name)} …", self.inks)
            return
        views = screen.panes_for(self.state.view)
        if View.CHANGES in views:
            self.state = self.derived.follow(self.reading, self.state, self._identity)
        frame = build_frame(self.state, self.derived, self.reading, views, self._note)
        screen.show(frame, self.inks, self.glyphs)
        self._painted_at = monotonic()

    @property
    def explorer(self) -> ExplorerScreen | None:
        """The explorer's screen, also while a dialog lies over it."""
        found = [screen for screen in self.screen_stack if isinstance(screen, ExplorerScreen)]
        return found[0] if found else None

    def on_explorer_screen_resized(self) -> None:
        """A new size may show other panes."""
        self.paint()

    # ---------------------------------------------------------------- what keys do

    def action_turn(self, name: str) -> None:
        """A pure turn of the state, by its name in the table of turns."""
        if self.derived is None:
            return
        turned = TURNS[name](self.state)
        if turned.sort is not self.state.sort:
            self._identity = None
        self.become(turned)

    def action_next_change(self, direction: int) -> None:
        """The nearest step where the sets change."""
        if self.reading is None:
            return
        before = self.state
        self.become(next_change(before, self.reading.changed_steps(before.probe), direction))
        if self.state == before:
            self.tell("the sets do not change any more in this direction")

    def action_next_pane(self) -> None:
        """Move the focus."""
        if self.explorer is not None and self.derived is not None:
            self.become(next_pane(self.state, self.explorer.panes_for(self.state.view)))

    def action_rows(self, by: int) -> None:
        """Move the cursor in Changes."""
        if self.reading is not None and self.derived is not None:
            n_rows = self.derived.arrangement(self.reading, self.state).size
            moved = move_row(self.state, by, n_rows)
            self._identity = self.derived.under_cursor(self.reading, moved)
            self.become(moved)

    def action_pages(self, by: int) -> None:
        """Move the cursor by what is visible."""
        if self.explorer is not None:
            self.action_rows(by * self.explorer.query_one(ChangesPane).page)

    def action_go_to(self) -> None:
        """Ask for a step number."""
        if self.derived is not None:
            first, last = self.state.steps[0], self.state.steps[-1]
            self._open_prompt("step", "", f"{first} … {last}, enter")

    def action_filter(self) -> None:
        """Ask for a filter of the rows; it takes effect while it is typed."""
        if self.derived is not None:
            if self.explorer is not None and View.CHANGES not in self.explorer.panes_for(self.state.view):
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

    def action_problems(self) -> None:
        """Which step files were left out."""
        left_out = self.derived.history.left_out if self.derived else ()
        self.push_screen(TextDialog("left out", problems_text(left_out, self.inks)))

    def action_help(self) -> None:
        """All keys."""
        self.push_screen(TextDialog("keys", help_text(self.inks)))

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Every row of the key table, and the themes."""
        for row in KEYS:
            if row.action != "app.command_palette":
                yield SystemCommand(row.help, row.shown, lambda action=row.action: self._run(action))
        yield SystemCommand("theme", "colours", self.action_change_theme)

    def tell(self, text: str) -> None:
        """A short notice in the footer, until something else happens."""
        self._note = shown(text)
        self.paint()

    def _run(self, action: str) -> None:
        self.call_later(self.run_action, action)

    def _open_prompt(self, purpose: str, text: str, hint: str) -> None:
        self._note = ""
        if self.explorer is not None:
            self.explorer.query_one(Prompt).open("step" if purpose == "step" else "filter", text, hint)
            self.paint()

    def _set_rule(self, rule: ThresholdRule | None) -> None:
        if rule is not None:
            self.become(with_rule(self.state, rule))

    def _to_step(self, number: int) -> None:
        turned = go_to(self.state, number)
        self.become(turned)
        if turned.step_number != number:
            self.tell(f"step {number} was not extracted; the nearest is {turned.step_number}")
