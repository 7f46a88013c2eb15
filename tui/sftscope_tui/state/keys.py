"""The one key table: the bindings, the footer, the help and the command palette are read from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from textual.binding import Binding

from sftscope_tui.state.view_state import View


@dataclass(frozen=True)
class KeyRow:
    """One thing a user can do.

    keys: Textual's names. shown: the keys as the help prints them. action: of the app. help: what it
    does. footer: the short word in the footer, "" where it has no room; local: the word in the footer of
    the views where the key is what one came for. group: heading in the help.
    """

    keys: str
    shown: str
    action: str
    help: str
    group: str
    footer: str = ""
    local: Mapping[View, str] = field(default_factory=dict)


KEYS: tuple[KeyRow, ...] = (
    KeyRow("right,l", "→ l", "app.turn('next_step')", "next step", "Steps"),
    KeyRow("left,h", "← h", "app.turn('previous_step')", "previous step", "Steps", "step"),
    KeyRow("shift+right,L", "shift+→ L", "app.turn('ten_steps_on')", "ten steps forward", "Steps"),
    KeyRow("shift+left,H", "shift+← H", "app.turn('ten_steps_back')", "ten steps back", "Steps"),
    KeyRow("home,g", "Home g", "app.turn('first_step')", "first step", "Steps"),
    KeyRow("end,G", "End G", "app.turn('last_step')", "last step", "Steps"),
    KeyRow("colon", ":", "app.go_to", "go to a step by its number", "Steps", "go to"),
    KeyRow("n", "n", "app.next_change(1)", "next step where the sets change", "Steps"),
    KeyRow("N", "N", "app.next_change(-1)", "previous step where the sets change", "Steps"),
    KeyRow("B", "B", "app.boundary", "the sparsest step", "Steps", "sparsest"),
    KeyRow("f", "f", "app.turn('follow')", "follow a run that is still being written, or stay", "Steps"),
    KeyRow("1", "1", "app.turn('trends')", "Trends: every class over the steps", "Views"),
    KeyRow("2", "2", "app.turn('changes')", "Changes: what was removed, preserved, newly emerged", "Views"),
    KeyRow("3", "3", "app.turn('orders')", "Orders: effects by number of words", "Views"),
    KeyRow("4", "4", "app.turn('backbone')", "Backbone: predicting with one class alone", "Views"),
    KeyRow("5", "5", "app.turn('probe')", "Probe: one prompt, its words and its logical model", "Views"),
    KeyRow("6", "6", "app.turn('compare')", "Compare: the sets of a second run", "Views"),
    KeyRow(
        "7",
        "7",
        "app.turn('runs')",
        "Runs: open another run, or compare with it",
        "Views",
        local={View.COMPARE: "second run"},
    ),
    KeyRow("8", "8", "app.turn('raw')", "Raw: the datasets of the step file", "Views"),
    KeyRow("tab", "tab", "app.next_pane", "next pane", "Views"),
    KeyRow("plus", "+", "app.turn('zoom')", "show only the focused pane, or all", "Views"),
    KeyRow(
        "o",
        "o",
        "app.turn('cycle_orders')",
        "Orders: effects, counts, or strengths without τ",
        "Views",
        local={View.ORDERS: "counts"},
    ),
    KeyRow("down,j", "↓ j", "app.rows(1)", "row down", "Rows"),
    KeyRow("up,k", "↑ k", "app.rows(-1)", "row up", "Rows"),
    KeyRow("pagedown", "PgDn", "app.pages(1)", "a page of rows down", "Rows"),
    KeyRow("pageup", "PgUp", "app.pages(-1)", "a page of rows up", "Rows"),
    KeyRow(
        "space",
        "space",
        "app.space",
        "show the row in full; Probe: take a word out; Runs: compare with it",
        "Rows",
        local={View.PROBE: "word out", View.RUNS: "compare"},
    ),
    KeyRow("enter", "enter", "app.enter", "show the row in full; Runs: open it", "Rows", local={View.RUNS: "open"}),
    KeyRow("K", "K", "app.origins", "the training rows behind the row; enter: what one of them carries", "Rows"),
    KeyRow("slash", "/", "app.filter", "filter the rows", "Rows", "filter"),
    KeyRow(
        "s",
        "s",
        "app.turn('cycle_sort')",
        "sort: strength, order, Δ, class, relation, words, effect now",
        "Rows",
        "sort",
    ),
    KeyRow(
        "w",
        "w",
        "app.words(1)",
        "Probe: next word; Raw: next dataset",
        "Rows",
        local={View.PROBE: "next word", View.RAW: "next dataset"},
    ),
    KeyRow("b", "b", "app.words(-1)", "Probe: previous word; Raw: previous dataset", "Rows"),
    KeyRow("i", "i", "app.mask('swap')", "Probe: swap present and masked words", "Rows"),
    KeyRow("u", "u", "app.mask('none')", "Probe: put all words back", "Rows", local={View.PROBE: "all words"}),
    KeyRow("d", "d", "app.turn('cycle_base')", "base: first, previous, pinned step", "Comparing", "base"),
    KeyRow("m", "m", "app.turn('pin')", "pin this step as the base, or unpin it", "Comparing", "pin"),
    KeyRow("t", "t", "app.threshold", "threshold τ: rule and value", "Comparing", "τ"),
    KeyRow("T", "T", "app.sensitivity", "the conclusions under every rule for τ", "Comparing"),
    KeyRow("v", "v", "app.verdict", "the verdict and its evidence", "Comparing", "verdict"),
    KeyRow("r", "r", "app.support", "support: in how many of 8 noisy copies a row has its class; slow", "Rows"),
    KeyRow("p", "p", "app.turn('next_probe')", "next probe", "Comparing", "probe"),
    KeyRow("P", "P", "app.turn('previous_probe')", "previous probe", "Comparing"),
    KeyRow("a", "a", "app.turn('all_probes')", "all probes", "Comparing"),
    KeyRow(
        "x",
        "x",
        "app.link",
        "Compare: move the second run with this one, or not",
        "Comparing",
        local={View.COMPARE: "link"},
    ),
    KeyRow("y", "y", "app.copy('view')", "copy this view as text", "Copy and export"),
    KeyRow("Y", "Y", "app.copy('command')", "copy the command that shows this view again", "Copy and export"),
    KeyRow("e", "e", "app.export", "export this view, or the report", "Copy and export", "export"),
    KeyRow("S", "S", "app.ask", "ask the training that writes this run to save, or to stop", "Program"),
    KeyRow("exclamation_mark", "!", "app.problems", "list the step files that were left out", "Program"),
    KeyRow("question_mark", "?", "app.help", "this help", "Program", "help"),
    KeyRow("ctrl+p,c", "ctrl+p c", "app.command_palette", "all commands and themes, by name", "Program"),
    KeyRow("q,ctrl+c", "q", "app.quit", "quit", "Program", "quit"),
)

FILTER_HELP = "words · AND OR · − = + · order:2-4 · >0 <0 · sign:flipped · probe:id · rep:8-10 · !not"


def bindings() -> list[Binding]:
    """The table as Textual's bindings."""
    return [Binding(row.keys, row.action, row.help, show=False) for row in KEYS]


def footer_items(view: View | None = None) -> list[tuple[str, str]]:
    """(key, word) for the footer of a view, its own keys first; the two arrow keys stand as one."""
    own = [(row.shown.split()[0], row.local[view]) for row in KEYS if view is not None and view in row.local]
    items = [(row.shown.split()[0], row.footer) for row in KEYS if row.footer]
    common = [("←/→" if word == "step" else key, word) for key, word in items]
    return [*common[:1], *own, *common[1:]]
