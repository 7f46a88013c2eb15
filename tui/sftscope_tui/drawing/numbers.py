"""Numbers as short text of stable width. NaN, which means undefined, is a dash."""

import math


def plain(value: float) -> str:
    """Three significant places, up to five characters below ten thousand."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    size = abs(value)
    places = 0 if size >= 100 else 1 if size >= 10 else 2
    text = f"{size:.1e}" if size >= 10_000 else f"{size:.{places}f}"
    return f"−{text}" if value < 0 and float(text) != 0 else text


def signed(value: float) -> str:
    """`plain` with a sign in front of what is not zero."""
    text = plain(value)
    return f"+{text}" if value > 0 and text[0].isdigit() and float(text) != 0 else text


def small(value: float) -> str:
    """Three decimals below ten, for losses."""
    return f"{value:.3f}" if math.isfinite(value) and 0 <= value < 10 else plain(value)
