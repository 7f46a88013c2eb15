"""Sends only the cells of an update that changed.

Textual's partial update writes every touched line from the start of its widget. Over SSH that is most
of what is sent, so the explorer renders the same update cropped to its spans. This is the one place that leans on
private names of Textual: `App._display`, and what an update holds in Textual 8. An update of another kind or shape,
as another version may have, is sent as it is; a test tells.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from rich.console import Console, RenderableType
from rich.control import Control
from textual.app import App
from textual.screen import Screen


class NarrowApp(App[None]):
    """An app whose partial updates are narrowed on their way to the terminal."""

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        super()._display(screen, narrowed(renderable))


def narrowed(update: Any) -> Any:
    """The update, rendered narrowly where its shape is the known one."""
    if _is_known(update):
        update.render_segments = partial(_render, update)
    return update


def _is_known(update: Any) -> bool:
    parts: list[Any] = [getattr(update, name, None) for name in ("chops", "chop_ends", "spans")]
    if not all(isinstance(part, Sequence) for part in parts) or not hasattr(update, "render_segments"):
        return False
    chops, ends, spans = parts
    return all(isinstance(row, Mapping) for row in chops) and all(
        isinstance(span, tuple) and len(span) == 3 and 0 <= span[0] < min(len(chops), len(ends)) for span in spans
    )


def _render(update: Any, console: Console) -> str:
    """What is written to the terminal: a move and the cells, span by span."""
    written = []
    for y, x1, x2 in update.spans:
        for end, (x, strip) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
            start, stop = max(x, x1), min(end, x2)
            if strip is not None and start < stop:
                written.append(Control.move_to(start, y).segment.text)
                written.append(strip.crop(start - x, stop - x).render(console))
    return "".join(written)
