"""Asking the training that writes this run to save or to stop: chosen, then asked once more."""

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from sftscope.store.sharing.training_requests import Request
from sftscope_tui.dialogs.dialogs import ChoiceList
from sftscope_tui.drawing.palette import Inks

CHOICES = {
    Request.SAVE: "save a checkpoint after the present step, and continue",
    Request.STOP: "save a checkpoint after the present step, and end the training",
}


class AskDialog(ModalScreen[Request | None]):
    """Choose with the arrows, enter, and enter again."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "choose(-1)", "above"),
        Binding("down", "choose(1)", "below"),
        Binding("enter", "ask", "ask"),
        Binding("escape", "leave", "close"),
    ]

    def __init__(self, inks: Inks) -> None:
        super().__init__()
        self._inks, self._sure = inks, False

    def compose(self) -> ComposeResult:
        """What can be asked for, and the question under it."""
        with Vertical(classes="dialog") as frame:
            frame.border_title = Content("ask the training that writes this run")
            frame.border_subtitle = Content("↑/↓ choose · enter twice to ask · esc cancel")
            yield ChoiceList([(f"{request:<6}", meaning) for request, meaning in CHOICES.items()], self._inks)
            yield Static("", markup=False, id="question")

    @property
    def _request(self) -> Request:
        return list(CHOICES)[self.query_one(ChoiceList).chosen]

    def action_choose(self, by: int) -> None:
        """Another request; nothing is asked yet."""
        self._sure = False
        choices = self.query_one(ChoiceList)
        choices.choose(choices.chosen + by)
        self.query_one("#question", Static).update("")

    def action_ask(self) -> None:
        """The first time the question, the second time the request."""
        if self._sure:
            self.dismiss(self._request)
        self._sure = True
        self.query_one("#question", Static).update(Text(f"really {self._request}? enter again asks for it"))

    def action_leave(self) -> None:
        """Ask for nothing."""
        self.dismiss(None)
