"""Sends only the cells of an update that changed.

Textual's partial update writes every touched line from the start of its widget. Over SSH that is most
of what is sent, so the explorer renders the same update cropped to its spans. Leans on a private class
of Textual 8; an update of any other kind passes as it is.
"""

from rich.console import Console
from rich.control import Control
from textual._compositor import ChopsUpdate


class NarrowUpdate(ChopsUpdate):
    """The spans of a partial update and nothing beside them."""

    @classmethod
    def of(cls, update: ChopsUpdate) -> "NarrowUpdate":
        """The same update."""
        return cls(update.chops, update.spans, update.chop_ends)

    def render_segments(self, console: Console) -> str:
        """What is written to the terminal: a move and the cells, span by span."""
        written = []
        for y, x1, x2 in self.spans:
            for end, (x, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
                start, stop = max(x, x1), min(end, x2)
                if strip is not None and start < stop:
                    written.append(Control.move_to(start, y).segment.text)
                    written.append(strip.crop(start - x, stop - x).render(console))
        return "".join(written)
