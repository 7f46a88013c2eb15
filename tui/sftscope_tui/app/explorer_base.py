"""The explorer's life: its runs, its state, and when it is painted. What keys do is in `app`.

Paints at once where there is time, at a limited rate while a key is held. Reads no file
itself and never imports PyTorch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from textual.filter import LineFilter
from textual.screen import Screen

from sftscope.analysis.sets.thresholds import ThresholdRule
from sftscope_tui.contents.background import Done, Loader, Urgency
from sftscope_tui.contents.change_table import Identity
from sftscope_tui.contents.derived import Derived, Reading
from sftscope_tui.contents.find_runs import runs_beside
from sftscope_tui.contents.open_run import Grown, RunHeadline, Session, headline_of
from sftscope_tui.contents.row_tracing import Origins, RowTracing, TraceJob
from sftscope_tui.drawing.narrow_update import NarrowApp
from sftscope_tui.drawing.palette import HIGH_CONTRAST_THEME, Glyphs, Inks, inks_for
from sftscope_tui.drawing.safe_lines import ControlFilter, shown
from sftscope_tui.frames.frame import Scene, bare_frame, build_frame, run_line
from sftscope_tui.frames.screen import ExplorerScreen
from sftscope_tui.panes.runs import RunLine
from sftscope_tui.state.preferences import Remembered, recall, remember, state_folder
from sftscope_tui.state.start_options import Start
from sftscope_tui.state.view_state import BaseMode, OrdersOf, Sort, View, ViewState, go_to, with_steps

PAINTS_A_SECOND = 15
POLL_SECONDS = 2.0
_FILES_A_SECOND = 500  # step files that are looked at again, so that a large run is not looked at all the time
_HINT = "←/→ change the step, B sparsest step, v evidence, 1–8 views, ? all keys"


@dataclass(frozen=True)
class HeadlineJob:
    """Key of a background job: the headline of the run at `path`."""

    path: Path


@dataclass(frozen=True)
class MayAskJob:
    """Key of a background job: why the training of the run at `path` cannot be asked for something."""

    path: Path


@dataclass(frozen=True)
class NoticeJob:
    """Key of a background job with a line for the footer. what: jobs of the same name wait for each other."""

    what: str


class ExplorerBase(NarrowApp):
    """The app without its keys. path: the run folder; more: others, the first of them to compare with."""

    CSS_PATH = "sftscope.tcss"
    TITLE = "sftscope"
    COMMAND_PALETTE_BINDING = "ctrl+p"

    def __init__(self, path: Path, *more: Path, start: Start | None = None) -> None:
        super().__init__()
        self.start = start or Start()
        self.memory = recall(state_folder())
        known = self.memory.glyphs if self.memory.glyphs in list(Glyphs) else Glyphs.BRAILLE
        self.glyphs = self.start.glyphs or Glyphs(known)
        self.loader, self.background = Loader(self), Loader(self)
        self.session = self._session(path, self.start.rule)
        self.tracing = RowTracing(path, self.start.train)
        self.other: Session | None = None
        self.state = self._first_state(path)
        self.run_paths: list[Path] = []
        self.given = list(more)
        self._headlines: dict[Path, RunHeadline] = {}
        self._to_begin = True  # the command line's step and probe are still to be found in the run
        self._user_moved = False
        self._note = "" if self.memory.hint_seen else _HINT
        self._identity: Identity | None = None
        self._control_filter = ControlFilter()
        self._awaited = ""  # the action of a dialog that opens once its content is computed
        self._painted_at = 0.0
        self._paint_waits = False

    def _first_state(self, path: Path) -> ViewState:
        start, sort = self.start, self.memory.sort
        remembered = next((each for each in Sort if each.value == sort), Sort.STRENGTH)
        return ViewState(
            run=path.absolute().name,
            rule=start.rule,
            view=start.view,
            focus=start.view,
            filter=start.filter,
            sort=start.sort or remembered,
            orders_of=next((each for each in OrdersOf if each == self.memory.orders_of), OrdersOf.EFFECTS),
            hysteresis=start.hysteresis,
            trajectory=start.trajectory,
            support=start.support,
        )

    def _session(self, path: Path, rule: ThresholdRule) -> Session:
        return Session(path, self.loader, rule, hysteresis=self.start.hysteresis, spare=self.background)

    # ---------------------------------------------------------------- the life of the app

    def get_default_screen(self) -> Screen[Any]:
        """The explorer's screen."""
        return ExplorerScreen()

    def get_line_filters(self) -> Sequence[LineFilter]:
        """The second gate against control characters stands before the terminal's own filters."""
        return [self._control_filter, *super().get_line_filters()]

    def on_mount(self) -> None:
        """Show that something is coming, then read."""
        self.register_theme(HIGH_CONTRAST_THEME)
        if self.memory.theme in self.available_themes:
            self.theme = self.memory.theme
        self.theme_changed_signal.subscribe(self, lambda _theme: self.paint())
        self.session.look()
        if self.given and self.start.view is not View.RUNS:
            self.compare_with(self.given[0])

    def on_unmount(self) -> None:
        """Let the threads end, and remember what the user chose."""
        self.loader.stop()
        self.background.stop()
        now = Remembered(self.theme, self.glyphs.value, self.state.sort.value, self.state.orders_of.value, True)
        if now != self.memory:
            remember(state_folder(), now)

    def on_done(self, done: Done) -> None:
        """A result of a loader: part of a run, a reading of it, curves over the steps, a headline."""
        self.loader.received(done)
        self.background.received(done)
        session = next((each for each in (self.session, self.other) if each is not None and each.owns(done)), None)
        if done.error is not None and not isinstance(done.error, Exception):
            raise done.error  # the end of the program was asked for
        if done.failure:
            self.tell(done.failure)
        if session is not None:
            self._grown(session, done.value or Grown(None, 0, 0, (), None, shown(done.failure)))
            self.paint()
            return
        match done.key:
            case HeadlineJob(path):
                self._headlines[path] = done.value or RunHeadline(shown(done.failure), failed=True)
            case MayAskJob(path):
                self.may_ask(path, done.value or shown(done.failure))
            case TraceJob():
                if done.error is None:
                    self.show_origins(done.key, done.value)
            case NoticeJob():
                self.tell(done.value or done.failure)
            case _:
                self._keep(done)
        self.paint()

    def _keep(self, done: Done) -> None:
        """Something that is derived from a run; a dialog may wait for it."""
        for each in (self.session, self.other):
            if each is not None and each.derived is not None:
                each.derived.keep(done)
        if self._awaited and not done.failure:
            self.call_later(self.run_action, self._awaited)

    def may_ask(self, path: Path, why: str) -> None:
        """It is known why the training of the run at `path` cannot be asked for something; empty where it can be."""

    def show_origins(self, job: TraceJob, found: Origins | str) -> None:
        """The training rows behind an interaction are found, or it is known why not."""

    def _grown(self, session: Session, grown: Grown) -> None:
        """More of a run is read; or it was looked at again, and will be in a while."""
        complete = session.is_complete
        if session.take(grown) and session is self.session and session.derived is not None:
            before = len(self.state.steps)
            history = session.derived.history
            self.state = with_steps(
                self.state, [int(step) for step in history.steps], [part.probe.id for part in history.probes]
            )
            self._begin()
            if complete and not self.state.follow:
                self.state = replace(self.state, unseen=self.state.unseen + max(len(self.state.steps) - before, 0))
        if grown.outcome and session.has_asked:
            session.has_asked = False
            self.tell(grown.outcome)
        if not grown.pending:
            self.set_timer(max(POLL_SECONDS, grown.total / _FILES_A_SECOND), session.look)

    def _begin(self) -> None:
        """Go where the command line asked to, as long as the user did not go elsewhere."""
        if self.start.step is not None and not self._user_moved:
            self.state = replace(go_to(self.state, self.start.step), follow=self.state.follow)
        if not self._to_begin:
            return
        self._to_begin = False
        if self.start.base == "previous":
            self.state = replace(self.state, base_mode=BaseMode.PREVIOUS)
        elif self.start.base:
            pinned = go_to(self.state, int(self.start.base)).step
            self.state = replace(self.state, pinned=pinned, base_mode=BaseMode.PINNED)
        if self.start.probe in self.state.probes:
            self.state = replace(self.state, probe=self.state.probes.index(self.start.probe))
        elif self.start.probe:
            self.tell(f"no probe {self.start.probe!r} in this run")

    def open_run(self, path: Path) -> None:
        """Leave this run for another one."""
        self.session, self.tracing = self._session(path, self.state.rule), RowTracing(path)
        self._identity, self._to_begin, self._user_moved = None, False, True
        kept = ("rule", "sort", "orders_of", "hysteresis", "trajectory", "support")
        self.state = ViewState(run=path.absolute().name, **{name: getattr(self.state, name) for name in kept})
        self.session.look()
        self.paint()

    def compare_with(self, path: Path | None) -> None:
        """Compare with a second run, or with none."""
        self.other = self._session(path, self.state.rule) if path is not None else None
        if self.other is not None:
            self.other.look()
        self.paint()

    # ---------------------------------------------------------------- painting

    @property
    def inks(self) -> Inks:
        """The styles for the present theme."""
        return inks_for(self.current_theme)

    @property
    def derived(self) -> Derived | None:
        """What is derived from the run, None until there is one."""
        return self.session.derived

    @property
    def reading(self) -> Reading | None:
        """The run under the newest threshold that is computed."""
        return self.session.reading

    @property
    def settled(self) -> bool:
        """Whether everything that was asked for is computed and painted."""
        return not self.loader.busy and not self.background.busy and not self._paint_waits

    @property
    def explorer(self) -> ExplorerScreen | None:
        """The explorer's screen, also while a dialog lies over it."""
        found = [screen for screen in self.screen_stack if isinstance(screen, ExplorerScreen)]
        return found[0] if found else None

    def become(self, state: ViewState) -> None:
        """Take on another state, and have it painted."""
        if state == self.state:
            return
        self._user_moved = self._user_moved or state.step != self.state.step
        self.state, self._note, self._awaited = state, "", ""
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
        self.session.read_under(self.state.rule)
        scene = self.scene()
        if scene is not None:
            views = screen.panes_for(self.state.view, self.state.zoom)
            self.state = self._settle(scene, views)
            screen.show(build_frame(replace(scene, state=self.state), views), self.inks, self.glyphs)
        elif self.state.view is View.RUNS:
            screen.show(bare_frame(self.state, self.session, self.runs(), self._note), self.inks, self.glyphs)
        elif self.session.failure:
            text = f"{self.session.failure}\n\n7 lists other runs, q quits. The folder is checked again automatically."
            screen.show_notice(text, self.inks, error=True)
        else:
            screen.show_notice(f"loading {self.session.name} …", self.inks)
        self._painted_at = monotonic()

    def scene(self) -> Scene | None:
        """What the present state is about; None while there is nothing to show."""
        if self.derived is None or self.reading is None or not self.state.steps:
            return None
        runs = self.runs() if self.state.view is View.RUNS else ()
        return Scene(self.state, self.session, self.derived, self.reading, self.other, runs, self._note)

    def runs(self) -> list[RunLine]:
        """The runs to choose from; headlines that are missing are asked for."""
        if not self.run_paths:
            self.run_paths = runs_beside(self.session.path, self.given)
        for path in self.run_paths:
            if path not in self._headlines:
                job = partial(headline_of, path, self.state.rule, self.state.hysteresis)
                self.background.request(HeadlineJob(path), job, Urgency.SPARE)
        return [run_line(path, self.session, self.other, self._headlines.get(path)) for path in self.run_paths]

    def forget_headlines(self) -> None:
        """They hold under one threshold, which has changed."""
        self._headlines.clear()

    def _settle(self, scene: Scene, views: Sequence[View]) -> ViewState:
        """The state with its cursor on the row that it was put on, and with a probe where the view needs one."""
        state = scene.state
        if state.view is View.PROBE and state.probe is None:
            found = scene.derived.under_cursor(scene.reading, replace(state, view=View.CHANGES))
            self._identity = found
            state = replace(state, probe=found[0] if found else 0)
        if View.CHANGES in views or View.PROBE in views:
            state = scene.derived.follow(scene.reading, state, self._identity)
        return state

    def tell(self, text: str) -> None:
        """A short notice in the footer, until something else happens."""
        self._note = shown(text)
        self.paint()

    def on_explorer_screen_resized(self) -> None:
        """A new size may show other panes."""
        self.paint()
