"""The explorer's one screen: bars above and below, as many panes between as the width allows.

Lays out and passes slices on; decides nothing about what they contain.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.events import Resize
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Static

from sftscope_tui.dialogs.prompt import Prompt
from sftscope_tui.drawing.palette import Glyphs, Inks
from sftscope_tui.panes.backbone import BackbonePane
from sftscope_tui.panes.changes import ChangesPane
from sftscope_tui.panes.compare import ComparePane
from sftscope_tui.panes.orders import OrdersPane
from sftscope_tui.panes.pane import Look, Pane
from sftscope_tui.panes.probe import ProbePane
from sftscope_tui.panes.raw import RawPane
from sftscope_tui.panes.runs import RunsPane
from sftscope_tui.panes.trends import TrendsPane
from sftscope_tui.state.keys import bindings, footer_items
from sftscope_tui.state.view_state import View, panes_shown
from sftscope_tui.widgets.bars import Bar, FooterBar, header_parts, tab_parts
from sftscope_tui.widgets.step_bar import StepBar, StepBarContent

SMALLEST = (40, 10)


@dataclass(frozen=True)
class Frame:
    """What one paint shows. Strings are safe to draw; slices are by view, for the panes that are shown."""

    run: str
    model: str
    place: str
    probe: str
    rule: str
    steps: StepBarContent | None
    losses: Sequence[tuple[str, str]]
    view: View
    focus: View
    slices: dict[View, Any]
    zoom: bool = False
    alert: str = ""
    note: str = ""


class ExplorerScreen(Screen[None]):
    """Header, step bar, views, panes, footer."""

    BINDINGS: ClassVar[list[BindingType]] = [*bindings()]
    AUTO_FOCUS = ""
    _notice = ""

    class Resized(Message):
        """The screen has a new size, and perhaps other panes."""

    def compose(self) -> ComposeResult:
        """All panes are there from the start; those that are not shown cost nothing."""
        yield Bar(id="header")
        yield StepBar(id="steps")
        yield Bar(id="tabs")
        yield Bar(id="alert")
        with Horizontal(id="panes"):
            yield TrendsPane()
            yield ChangesPane()
            yield OrdersPane()
            yield BackbonePane()
            yield ProbePane()
            yield ComparePane()
            yield RunsPane()
            yield RawPane()
        yield Static("", id="notice", markup=False)
        yield FooterBar(id="footer")
        yield Prompt()

    @property
    def too_small(self) -> bool:
        """Whether there is no room for anything but a message."""
        return self.size.width < SMALLEST[0] or self.size.height < SMALLEST[1]

    def panes_for(self, view: View, zoom: bool = False) -> tuple[View, ...]:
        """The views that are shown when `view` is chosen."""
        return panes_shown(view, self.size.width, zoom)

    def on_resize(self, event: Resize) -> None:
        """Ask for another paint, unless the terminal has another size by now: the app sends that one next.

        A screen of Textual sends itself one more Resize for each new layout. Textual merges those that wait side by
        side, but `Resized` comes between them: two sizes at once would undo each other's layout for ever, with
        megabytes of escape codes a second and no key heard. So a size that is out of date is not laid out.
        """
        if event.size == self.app.size:
            self.post_message(self.Resized())
        else:
            event.prevent_default()

    def show_notice(self, text: str, inks: Inks, *, error: bool = False) -> None:
        """One message in place of the panes."""
        small = self.too_small
        if small:
            text, error = f"sftscope needs {SMALLEST[0]}×{SMALLEST[1]} cells", False
        for name in ("#header", "#steps", "#tabs", "#footer"):
            self.query_one(name).display = not small
        self.query_one("#panes").display = False
        notice = self.query_one("#notice", Static)
        notice.set_class(small, "bare")
        notice.display = True
        if text != self._notice:
            self._notice = text
            notice.update(Text(text, inks.error if error else inks.plain))
        self.query_one("#header", Bar).show([(" sftscope ", inks.strong)])
        self.query_one(FooterBar).show(footer_items()[-2:], inks)

    def show(self, frame: Frame, inks: Inks, glyphs: Glyphs) -> None:
        """Draw a frame."""
        if self.too_small:
            self.show_notice("", inks)
            return
        width = self.size.width
        for name in ("#header", "#steps", "#tabs", "#panes"):
            self.query_one(name).display = True
        self.query_one("#notice").display = False
        prompt = self.query_one(Prompt)
        self.query_one("#footer").display = not prompt.display
        header = header_parts(frame.run, frame.model, frame.place, frame.probe, frame.rule, inks)
        self.query_one("#header", Bar).show(*header)
        self.query_one(StepBar).show(frame.steps, inks)
        self.query_one("#tabs", Bar).show(*tab_parts(frame.view, frame.losses, width, inks))
        alert = self.query_one("#alert", Bar)
        alert.display = bool(frame.alert)
        alert.show([(frame.alert, inks.error)])
        self.query_one(FooterBar).show(footer_items(frame.view), inks, frame.note)
        self._show_panes(frame, inks, glyphs)

    def _show_panes(self, frame: Frame, inks: Inks, glyphs: Glyphs) -> None:
        shown = self.panes_for(frame.view, frame.zoom)
        focus = frame.focus if frame.focus in shown else frame.view
        self.query_one("#panes").set_class(len(shown) == 3, "three")
        for pane in self.query(Pane):
            pane.display = pane.view in shown
            pane.set_class(pane.view in shown[1:], "beside")
            if pane.display:
                focused = pane.view is focus
                pane.show(frame.slices.get(pane.view), Look(inks, glyphs, focused))
