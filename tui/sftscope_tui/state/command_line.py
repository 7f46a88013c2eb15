"""The command that shows the present view again, as a user can paste it."""

from pathlib import Path

from sftscope.analysis import DEFAULT_HYSTERESIS
from sftscope.foundation.safe_text import shell_command
from sftscope_tui.state.usable_terminal import argument
from sftscope_tui.state.view_state import BaseMode, Sort, View, ViewState


def command_for(state: ViewState, path: Path, other: Path | None = None, *, train: str = "") -> str:
    """`sftscope explore` with every option that is not what it would be by itself."""
    parts = ["sftscope", "explore", argument(path)]
    if other is not None:
        parts.append(argument(other))
    if state.steps:
        parts += ["--step", str(state.step_number)]
        if state.base_mode is BaseMode.PREVIOUS:
            parts += ["--base", "previous"]
        elif state.base:
            parts += ["--base", str(state.steps[state.base])]
    if state.probe is not None:
        parts += ["--probe", state.probes[state.probe]]
    parts += ["--tau", str(state.rule)]
    if state.hysteresis != DEFAULT_HYSTERESIS:
        parts += ["--hysteresis", str(state.hysteresis)]
    parts += [f"--{name}" for name in ("trajectory", "support") if getattr(state, name)]
    parts += ["--view", state.view.value.lower()]
    if state.filter:
        parts += ["--filter", state.filter]
    if state.sort is not Sort.STRENGTH:
        parts += ["--sort", state.sort.name.lower()]
    if train:
        parts += ["--train", train]
    return shell_command(parts)


def view_named(name: str) -> View | None:
    """The view of a name on the command line."""
    return next((view for view in View if view.value.lower() == name.casefold()), None)


def sort_named(name: str) -> Sort | None:
    """The order of the rows of a name on the command line."""
    return next((sort for sort in Sort if name.casefold() in (sort.name.lower(), sort.value)), None)
