"""What is written for a user: the present view as a file, the report, and a copy of what was copied.

Jobs for the loader's thread: they return the sentence that the footer then shows.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from sftscope.analysis.rows.row_index import RowIndex
from sftscope.analysis.sets.evolution import Evolution
from sftscope.files.opening import is_there
from sftscope.foundation.errors import SftscopeError
from sftscope.lattice.transforms import Relation
from sftscope.reporting.sheets import FORMATS, Sheet, compare_sheet, view_sheet
from sftscope.store import RunFolder, write_atomically
from sftscope_tui.contents.derived import selection_of
from sftscope_tui.dialogs.dialogs import ExportWish
from sftscope_tui.frames.frame import Scene
from sftscope_tui.state.preferences import state_folder
from sftscope_tui.state.view_state import View, ViewState


def default_paths(state: ViewState) -> Mapping[str, Path]:
    """Where each form goes if the user does not say otherwise: the working folder."""
    name = "".join(c if c.isalnum() or c in "._-" else "_" for c in state.run).lstrip(".-")[:60] or "run"
    stem = f"{name}-{state.focus.value.lower()}-step{state.step_number}"
    return {**{form: Path(f"{stem}.{form}") for form in FORMATS}, "report": Path(f"{name}-report")}


def sheet_of(scene: Scene) -> Callable[[], Sheet]:
    """What makes the sheet of the view with the focus: the rows that are listed, in their order.

    What the screen's caches hold is looked up now, so that the sheet can be made in another thread.
    """
    state, view = scene.state, scene.state.focus
    evolution, selection = scene.reading.evolution, selection_of(state)
    if view is View.COMPARE:
        theirs = scene.other.reading if scene.other is not None else None
        if theirs is None or scene.other is None:
            raise SftscopeError("there is no second run to export a comparison with")
        return partial(compare_sheet, evolution, scene.derived.diff(scene.reading, state, theirs), scene.other.name)
    if view is View.RUNS:
        runs = [(run.name, run.headline or "", run.where) for run in scene.runs]
        return partial(Sheet, "Runs", ("run", "headline", "folder"), runs)
    if view is View.RAW:
        folder = RunFolder(scene.session.path)
        return lambda: view_sheet(evolution, selection, "raw", record=folder.read_step(state.step_number))
    table, rows = scene.derived.table(scene.reading, state), scene.derived.arrangement(scene.reading, state).tolist()
    keep = [
        (table.probes[p].probe.id, Relation(relation).name, subset) for p, relation, subset in map(table.identity, rows)
    ]
    support = {key: int(table.support[row]) for key, row in zip(keep, rows, strict=True) if table.support[row] >= 0}
    known = support if state.support else None
    return partial(view_sheet, evolution, selection, view.value.lower(), keep=keep, support=known)


def export_job(
    wish: ExportWish,
    evolution: Evolution,
    sheet: Callable[[], Sheet],
    trained: Callable[[], RowIndex | str],
    tell: Callable[[str], None],
) -> Callable[[], str]:
    """A job that writes what is wished for, and tells how far it is whenever the percentage has changed.

    trained: reads the training rows, or says why there are none.
    """
    last = -1

    def progress(done: int, total: int, note: str = "") -> None:
        nonlocal last
        now = 100 * done // max(total, 1)
        if now != last:
            tell(f"writing {wish.path}: {now} % ({note})")
        last = now

    def write() -> str:
        if wish.form == "report":
            from sftscope.reporting.forms import write_report  # here, so that the explorer starts without it

            written = write_report(evolution, wish.path, rows=trained(), progress=progress)
            return f"written: {', '.join(map(str, written))}"
        if is_there(wish.path):
            raise SftscopeError(f"{wish.path}: is there already; choose another name")
        write_atomically(wish.path, FORMATS[wish.form](sheet()).encode("utf-8"))
        return f"written: {wish.path}"

    return write


def copy_file(text: str, said: str) -> str:
    """Keep what was copied in a file of the user, for terminals that take no clipboard text."""
    folder = state_folder()
    if folder is None:
        return f"{said}; in no file, there is no home folder"
    path = folder / "copied.txt"
    try:
        write_atomically(path, text.encode("utf-8"))
    except SftscopeError as error:
        return f"{said}; {error}"
    return f"{said}; also in {path}"
