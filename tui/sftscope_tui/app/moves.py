"""The explorer's moves: through the steps, the rows and the panes."""

from sftscope_tui.app.explorer_base import ExplorerBase
from sftscope_tui.frames.frame import n_rows
from sftscope_tui.panes.pane import Pane
from sftscope_tui.state.view_state import ROWS_OF_CHANGES, TURNS, View, at_step, move_row, next_change, next_pane


class MovingExplorer(ExplorerBase):
    """The app with the keys that change what is looked at, and nothing else."""

    def action_turn(self, name: str) -> None:
        """A pure turn of the state, by its name in the table of turns."""
        if self.derived is None and name != "runs":
            return
        turned = TURNS[name](self.state)
        if turned.sort is not self.state.sort:
            self._identity = None
        self.become(turned)

    def action_next_change(self, direction: int) -> None:
        """The nearest step where the sets change."""
        if self.reading is None:
            return
        before = self.state
        self.become(next_change(before, self.reading.changed_steps(before.probe), direction))
        if self.state == before:
            self.tell("no further changes in this direction")

    def action_boundary(self) -> None:
        """The sparsest step, the last of the denoising stage."""
        if self.reading is None:
            return
        sparsest = self.reading.events.sparsest
        if sparsest.index is None:
            self.tell(f"no sparsest step: {sparsest.reason}")
            return
        self.become(at_step(self.state, sparsest.index))
        self.tell(f"sparsest at step {sparsest.where}: {sparsest.reason}")

    def action_next_pane(self) -> None:
        """Move the focus."""
        if self.explorer is not None and self.derived is not None:
            self.become(next_pane(self.state, self.explorer.panes_for(self.state.view, self.state.zoom)))

    @property
    def _listed(self) -> View:
        """The view whose rows the keys move: the one with the focus that has a cursor of its own."""
        own = (View.COMPARE, View.RUNS, View.RAW)
        return next((view for view in (self.state.focus, self.state.view) if view in own), View.CHANGES)

    def action_rows(self, by: int) -> None:
        """Move the cursor."""
        scene, view = self.scene(), self._listed
        if view is View.RUNS:
            self.become(move_row(self.state, by, len(self.runs()), view))
        elif scene is not None:
            moved = move_row(self.state, by, n_rows(view, scene), view)
            if view in ROWS_OF_CHANGES:
                self._identity = scene.derived.under_cursor(scene.reading, moved)
            self.become(moved)

    def action_pages(self, by: int) -> None:
        """Move the cursor by what is visible."""
        if self.explorer is not None:
            panes = [pane for pane in self.explorer.query(Pane) if pane.display and hasattr(pane, "page")]
            wanted = [pane for pane in panes if pane.view is self._listed] or panes
            self.action_rows(by * (wanted[0].page if wanted else 10))
