"""What opens over the explorer: a text to read (help, a row in full, problems), and the threshold."""

from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.strip import Strip
from textual.widgets import Input, Static

from engine.analysis.thresholds import RULES, ThresholdRule
from engine.errors import SftscopeError
from tui.palette import Inks
from tui.safe_lines import shown
from tui.widgets.lines import Lines, line


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


class RuleList(Lines):
    """The threshold rules, the chosen one in reverse video."""

    chosen = 0

    def __init__(self, inks: Inks) -> None:
        super().__init__(id="rules")
        self._inks = inks

    def choose(self, index: int) -> None:
        """Move to the rule at `index`."""
        self.chosen = index % len(RULES)
        self.redraw()

    def lay_out(self, width: int, height: int) -> list[Strip]:
        """A line a rule."""
        strips = []
        for index, (name, (value, meaning)) in enumerate(RULES.items()):
            base = Style(reverse=True) if index == self.chosen else None
            pieces = [(f" {name:<12}", self._inks.strong), (f"{value:<6g}", self._inks.plain)]
            strips.append(line([*pieces, (meaning, self._inks.muted)], width, base))
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
            yield RuleList(self._inks)
            yield Input(f"{self._rule.value:g}", restrict=r"[0-9.e+-]*", compact=True, id="value")
            yield Static("", markup=False, id="meaning")
            yield Static("", markup=False, id="wrong")

    def on_mount(self) -> None:
        """Begin at the present rule."""
        self._choose(list(RULES).index(self._rule.name))

    def _choose(self, index: int) -> str:
        rules = self.query_one(RuleList)
        rules.choose(index)
        name = list(RULES)[rules.chosen]
        self.query_one("#meaning", Static).update(Text(RULES[name][1], self._inks.muted))
        return name

    def action_rule(self, by: int) -> None:
        """Another rule, with its own default value."""
        name = self._choose(self.query_one(RuleList).chosen + by)
        value = self._rule.value if name == self._rule.name else RULES[name][0]
        self.query_one(Input).value = f"{value:g}"

    def action_cancel(self) -> None:
        """Leave τ as it is."""
        self.dismiss(None)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Apply, or say what is wrong with the value."""
        name = list(RULES)[self.query_one(RuleList).chosen]
        try:
            self.dismiss(ThresholdRule.parse(f"{name}:{event.value}"))
        except SftscopeError as error:
            self.query_one("#wrong", Static).update(Text(shown(error)))
