"""Which rows of a long table are visible."""


def window(n_rows: int, cursor: int, height: int, top: int) -> range:
    """The visible rows: `height` of them from `top` on, moved only as far as the cursor asks for."""
    height = max(height, 0)
    if cursor < top:
        top = cursor
    elif cursor >= top + height:
        top = cursor - height + 1
    top = min(max(top, 0), max(n_rows - height, 0))
    return range(top, min(top + height, n_rows))
