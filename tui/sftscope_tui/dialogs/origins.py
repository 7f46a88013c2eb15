"""The training rows behind an interaction, and, with enter, one of them with what it carries."""

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.geometry import Region
from textual.screen import ModalScreen
from textual.widgets import Static

from sftscope.lattice.transforms import Relation
from sftscope.reporting.traced_table import which_words
from sftscope_tui.contents.row_tracing import Origin, Origins
from sftscope_tui.dialogs.dialogs import ChoiceList, TextDialog
from sftscope_tui.drawing.numbers import plain, signed
from sftscope_tui.drawing.palette import Inks
from sftscope_tui.drawing.safe_lines import shown

_MOST_CARRIED = 100  # interactions that are listed of a training row
_MOST_ANSWERS = 3


class OriginsDialog(ModalScreen[None]):
    """What chance would give, then the rows: the arrows choose, enter opens one."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "choose(-1)", "row above"),
        Binding("down,j", "choose(1)", "row below"),
        Binding("pageup", "choose(-10)", "ten rows up"),
        Binding("pagedown", "choose(10)", "ten rows down"),
        Binding("enter,space", "open", "open"),
        Binding("escape,q,K", "dismiss", "close"),
    ]

    def __init__(self, origins: Origins, inks: Inks) -> None:
        super().__init__()
        self._origins, self._inks = origins, inks

    def compose(self) -> ComposeResult:
        """The counts above, a line a row under them."""
        with VerticalScroll(classes="dialog") as frame:
            frame.can_focus = False  # its own keys would scroll, and not choose
            frame.border_title = Content("training rows")
            frame.border_subtitle = Content("↑/↓ choose · enter the row, and what it carries · esc close")
            yield Static(origins_text(self._origins, self._inks), markup=False)
            if self._origins.rows:
                yield ChoiceList([_line(each) for each in self._origins.rows], self._inks)

    def action_choose(self, by: int) -> None:
        """Another row, within the list."""
        if not self._origins.rows:
            return
        choices = self.query_one(ChoiceList)
        choices.choose(min(max(choices.chosen + by, 0), len(self._origins.rows) - 1))
        here = Region(0, choices.virtual_region.y + choices.chosen, 1, 1)
        self.query_one(VerticalScroll).scroll_to_region(here, animate=False)

    def action_open(self) -> None:
        """The chosen row in full."""
        if self._origins.rows:
            origin = self._origins.rows[self.query_one(ChoiceList).chosen]
            title = f"training row {origin.number}"
            self.app.push_screen(TextDialog(title, origin_text(self._origins, origin, self._inks)))


def origins_text(origins: Origins, inks: Inks) -> Text:
    """How many training rows are behind the interaction, how many have the probe's answer, and what chance gives."""
    table, found, at = origins.table, origins.found, origins.table.find(origins.identity)
    assert at is not None
    answer = shown(table.probes[origins.identity[0]].probe.response, 60)
    relation, order, count = Relation(origins.identity[1]).name, int(table.order[at]), found.places.size
    text = Text(f"{' · '.join(table.words(at))}\n", inks.strong)
    text.append(f"{relation}, step {table.base_step} {signed(float(table.effect_base[at]))}")
    text.append(f"   step {table.step} {signed(float(table.effect_now[at]))}\n\n")
    have = "has" if count == 1 else "have"
    text.append(f"{count} of {found.n_rows} training rows {have} {which_words(order, relation)}")
    text.append(f" (by chance {plain(found.expected)})\n" if order > 1 else "\n")
    if found.answered_expected:
        text.append(f"{found.answered} of them answer {answer!r}")
        text.append(f" (by chance {plain(found.answered_expected)}, p {found.p_value:.2g})\n")
    elif count:
        text.append(f"no training row answers {answer!r}\n")
    if found.answers:
        counts = [f"{shown(each.answer, 30)} {each.count} of {each.in_all}" for each in found.answers[:_MOST_ANSWERS]]
        text.append(f"answers: {', '.join(counts)}{', …' if len(found.answers) > _MOST_ANSWERS else ''}\n", inks.muted)
    if count > len(origins.rows):
        text.append(f"the first {len(origins.rows)} are listed\n", inks.muted)
    return text


def origin_text(origins: Origins, origin: Origin, inks: Inks) -> Text:
    """A training row with the newly emerged interactions that it carries."""
    table = origins.table
    text = Text(f"{shown(origin.row.prompt, 4_000)}\n", inks.plain)
    text.append(f"→ {shown(origin.row.response, 1_000)}\n\n", inks.strong)
    text.append(f"carries {origin.carries.size} newly emerged interactions, step {table.base_step} → {table.step}\n")
    for at in origin.carries[:_MOST_CARRIED].tolist():
        probe, relation, _ = table.identity(at)
        text.append(f"{signed(float(table.effect_now[at])):>8} {Relation(relation).name:<4}")
        text.append(f"{' · '.join(table.words(at))}", inks.strong)
        text.append(f"  {shown(table.probes[probe].probe.id, 40)}\n", inks.muted)
    if origin.carries.size > _MOST_CARRIED:
        text.append(f"… and {origin.carries.size - _MOST_CARRIED} more", inks.muted)
    return text


def _line(origin: Origin) -> tuple[str, str]:
    row = origin.row
    return f"row {origin.number}", f"{shown(row.input or row.instruction, 300)} → {shown(row.response, 60)}"
