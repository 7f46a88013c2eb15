"""The line at the foot where a step number or a filter is typed, in place of the footer."""

from typing import ClassVar, Literal

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Static

Purpose = Literal["step", "filter"]


class Prompt(Horizontal):
    """One line of input; hidden until it is opened."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "cancel", show=False)]

    class Typed(Message):
        """What is typed so far, or (final) what was decided on."""

        def __init__(self, purpose: Purpose, text: str, *, final: bool) -> None:
            super().__init__()
            self.purpose: Purpose = purpose
            self.text = text
            self.final = final

    purpose: Purpose = "filter"
    _before = ""

    def compose(self) -> ComposeResult:
        """What is asked for, the input, what may be typed."""
        yield Static("", id="asks", markup=False)
        yield Input(compact=True, id="typed", select_on_focus=False, disabled=True)
        yield Static("", id="hint", markup=False)

    def open(self, purpose: Purpose, text: str, hint: str) -> None:
        """Ask for `purpose`, beginning with `text`."""
        self.purpose, self._before = purpose, text
        self.query_one("#asks", Static).update(" go to step " if purpose == "step" else " filter ")
        self.query_one("#hint", Static).update(f"{hint} ")
        typed = self.query_one(Input)
        typed.restrict = r"[0-9]*" if purpose == "step" else None
        typed.max_length = 12 if purpose == "step" else 200
        with typed.prevent(Input.Changed):
            typed.value = text
        typed.cursor_position = len(text)
        typed.disabled = False
        self.display = True
        typed.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Pass on what is typed."""
        event.stop()
        self.post_message(self.Typed(self.purpose, event.value, final=False))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Decide on it."""
        event.stop()
        self._close(event.value)

    def action_cancel(self) -> None:
        """Back to what it was."""
        self._close(self._before)

    def _close(self, text: str) -> None:
        self.query_one(Input).disabled = True
        self.screen.set_focus(None)
        self.display = False
        self.post_message(self.Typed(self.purpose, text, final=True))
