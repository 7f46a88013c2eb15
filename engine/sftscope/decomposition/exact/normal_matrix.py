"""D diag(θ) Dᵀ of the AND-OR program by look-up: no product of matrices.

With ζ_and, ζ_or the zeta transforms of θ's halves and T̄ = N∖T,
    entry (T, T') = ζ_and(T ∩ T') + ζ_or(N) − ζ_or(T̄) − ζ_or(T̄') + ζ_or(T̄ ∩ T̄').
T̄ ∩ T̄' is the complement of T ∪ T', and complementing a subset reverses the index.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sftscope.lattice.transforms import Floats, zeta_transform

Ints = NDArray[np.int64]

TILE_BITS = 5  # of a whole matrix: tiles of 32 × 32 are 8 KiB, copied at memory speed
BAND = 1 << 16  # entries of some chosen rows that are looked up at once: their indices stay in the cache


def fill_normal_matrix(out: Floats, theta: Floats, states: Ints | None = None) -> None:
    """The upper triangle of the matrix into `out`, (R, R): over all masked states, or over `states` (R,).

    theta: (2, 2^n), AND then OR. What lies below the diagonal of `out` is not defined.
    """
    below_and, below_or = zeta_transform(theta)
    missing = np.ascontiguousarray(below_or[::-1])  # ζ_or(T̄), so that T̄ ∩ T̄' is found at T ∪ T'
    if states is None:
        _fill_by_tiles(out, below_and, missing)
    else:
        _fill_by_bands(out, below_and, missing, states)


def _fill_by_tiles(out: Floats, below_and: Floats, missing: Floats) -> None:
    """Split into high and low bits, T = (P, p), the entries at (P, ·), (P', ·) are one tile of ζ_and, chosen by
    P ∩ P', and one of ζ_or, chosen by P ∪ P'."""
    high, low = _tables(len(missing).bit_length() - 1)
    tiles, width = len(high[0]), len(low[0])
    and_tiles = np.take(below_and.reshape(tiles, width), low[0], axis=1)  # (tiles, width, width)
    by_tile = missing.reshape(tiles, width)
    or_tiles = np.take(by_tile, low[1], axis=1)
    blocks = out.reshape(tiles, width, tiles, width)
    spare = np.empty((2, tiles, width, width))  # made once: fresh memory costs as much as filling it
    for row in range(tiles):
        block, other = spare[:, row:]
        np.take(and_tiles, high[0][row, row:], axis=0, out=block, mode="clip")  # clip: unbuffered
        np.take(or_tiles, high[1][row, row:], axis=0, out=other, mode="clip")
        block += other
        block -= by_tile[row:, None, :]
        shift = (missing[0] - by_tile[row])[:, None, None]
        np.add(block.swapaxes(0, 1), shift, out=blocks[row, :, row:])


@lru_cache(maxsize=4)
def _tables(n: int) -> tuple[tuple[Ints, Ints], tuple[Ints, Ints]]:
    """Meets and joins of the high bits, and of the low ones."""
    high, low = np.arange(1 << max(0, n - TILE_BITS)), np.arange(1 << min(n, TILE_BITS))
    return (high[:, None] & high, high[:, None] | high), (low[:, None] & low, low[:, None] | low)


def _fill_by_bands(out: Floats, below_and: Floats, missing: Floats, states: Ints) -> None:
    total = len(states)
    height = max(1, BAND // total)
    states = states.astype(np.intp)
    own = missing[states]
    for first in range(0, total, height):
        last = min(first + height, total)
        here, right = states[first:last, None], states[first:]
        band = np.take(below_and, here & right, mode="clip")
        band += np.take(missing, here | right, mode="clip")
        band -= own[first:]
        band += (missing[0] - own[first:last])[:, None]
        out[first:last, first:] = band
