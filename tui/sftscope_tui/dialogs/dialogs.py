"""What opens over the explorer: a text to read (help, a row in full, problems), and the threshold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.strip import Strip
from textual.widgets import Input, Static

from sftscope.analysis.sets.thresholds import RULES, ThresholdRule
from sftscope.foundation.errors import SftscopeError
from sftscope_tui.drawing.palette import Inks
from sftscope_tui.drawing.safe_lines import shown
from sftscope_tui.state.preferences import in_home
from sftscope_tui.widgets.lines import Lines, fit, line


class TextDialog(ModalScreen[None]):
    """A text that scrolls; most keys close it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,space,enter,question_mark,exclamation_mark", "dismiss", "close"),
        Binding("j", "scroll(1)", "down", show=False),
        Binding("k", "scroll(-1)", "up", show=False),
    ]

    def __init__(self, title: str, text: Text) -> None:
        super().__init__()
        self._heading, self._text = title, text

    def compose(self) -> ComposeResult:
        """The text in a frame."""
        with VerticalScroll(classes="dialog") as frame:
            frame.border_title = Content(self._heading)
            frame.border_subtitle = Content("↑/↓ scroll · esc close")
            yield Static(self._text, markup=False)

    def action_scroll(self, by: int) -> None:
        """A line down or up."""
        self.query_one(VerticalScroll).scroll_relative(y=by, animate=False)


class ChoiceList(Lines):
    """Names with their meanings, the chosen one in reverse video."""

    chosen = 0

    def __init__(self, rows: Sequence[tuple[str, str]], inks: Inks) -> None:
        super().__init__(id="choices")
        self._rows, self._inks = rows, inks

    def on_mount(self) -> None:
        """As high as there are rows."""
        self.styles.height = len(self._rows)

    def choose(self, index: int) -> None:
        """Move to the row at `index`, around the end."""
        self.chosen = index % len(self._rows)
        self.redraw()

    def lay_out(self, width: int, height: int) -> list[Strip]:
        """A line a row."""
        name_width = max(cell_len(name) for name, _ in self._rows) + 2
        strips = []
        for index, (name, meaning) in enumerate(self._rows):
            base = Style(reverse=True) if index == self.chosen else None
            pieces = [(f" {fit(name, name_width)}", self._inks.strong), (meaning, self._inks.muted)]
            strips.append(line(pieces, width, base))
        return strips


class ThresholdDialog(ModalScreen[ThresholdRule | None]):
    """Choose a rule with the arrows, type its value, enter applies."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "rule(-1)", "rule above"),
        Binding("down", "rule(1)", "rule below"),
        Binding("escape", "cancel", "close"),
    ]

    def __init__(self, rule: ThresholdRule, inks: Inks) -> None:
        super().__init__()
        self._rule, self._inks = rule, inks

    def compose(self) -> ComposeResult:
        """Rules above, value below, what is wrong under it."""
        with Vertical(classes="dialog") as frame:
            frame.border_title = Content("threshold τ: an interaction counts where |effect| > τ")
            frame.border_subtitle = Content("↑/↓ rule · type its value · enter apply · esc cancel")
            yield ChoiceList([(f"{name:<12}{value:g}", text) for name, (value, text) in RULES.items()], self._inks)
            yield Input(f"{self._rule.value:g}", restrict=r"[0-9.e+-]*", compact=True, id="value")
            yield Static("", markup=False, id="meaning")
            yield Static("", markup=False, id="wrong")

    def on_mount(self) -> None:
        """Begin at the present rule."""
        self._choose(list(RULES).index(self._rule.name))

    def _choose(self, index: int) -> str:
        rules = self.query_one(ChoiceList)
        rules.choose(index)
        name = list(RULES)[rules.chosen]
        self.query_one("#meaning", Static).update(Text(RULES[name][1], self._inks.muted))
        return name

    def action_rule(self, by: int) -> None:
        """Another rule, with its own default value."""
        name = self._choose(self.query_one(ChoiceList).chosen + by)
        value = self._rule.value if name == self._rule.name else RULES[name][0]
        self.query_one(Input).value = f"{value:g}"

    def action_cancel(self) -> None:
        """Leave τ as it is."""
        self.dismiss(None)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Apply, or say what is wrong with the value."""
        name = list(RULES)[self.query_one(ChoiceList).chosen]
        try:
            self.dismiss(ThresholdRule.parse(f"{name}:{event.value}"))
        except SftscopeError as error:
            self.query_one("#wrong", Static).update(Text(shown(error)))


@dataclass(frozen=True)
class ExportWish:
    """What is to be written where. form: txt, csv or json for the present view, report for all of it."""

    form: str
    path: Path


class ExportDialog(ModalScreen[ExportWish | None]):
    """Choose a form with the arrows, change the path, enter writes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "form(-1)", "form above"),
        Binding("down", "form(1)", "form below"),
        Binding("escape", "cancel", "close"),
    ]
    FORMS: ClassVar[dict[str, str]] = {
        "txt": "this view as text",
        "csv": "this view as a table for a spreadsheet, all digits",
        "json": "this view as JSON, all digits",
        "report": "the report as Markdown and JSON, into a folder",
    }

    def __init__(self, paths: Mapping[str, Path], inks: Inks) -> None:
        super().__init__()
        self._paths, self._inks = paths, inks

    def compose(self) -> ComposeResult:
        """Forms above, the path below."""
        with Vertical(classes="dialog") as frame:
            frame.border_title = Content("export")
            frame.border_subtitle = Content("↑/↓ form · type the path · enter write · esc cancel")
            yield ChoiceList(list(self.FORMS.items()), self._inks)
            yield Input("", compact=True, id="value")

    def on_mount(self) -> None:
        """Begin at the first form."""
        self._choose(0)

    def _choose(self, index: int) -> None:
        forms = self.query_one(ChoiceList)
        forms.choose(index)
        self.query_one(Input).value = str(self._paths[list(self.FORMS)[forms.chosen]])

    def action_form(self, by: int) -> None:
        """Another form, with its own path."""
        self._choose(self.query_one(ChoiceList).chosen + by)

    def action_cancel(self) -> None:
        """Write nothing."""
        self.dismiss(None)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Write there."""
        if event.value.strip():
            form = list(self.FORMS)[self.query_one(ChoiceList).chosen]
            path = in_home(event.value)
            if path is None:
                wrong = f"no such home folder: {event.value.partition('/')[0]}"
                self.query_one(Vertical).border_subtitle = Content(shown(wrong))
            else:
                self.dismiss(ExportWish(form, path))
