"""(D Dᵀ + ridge)⁻¹ without a matrix of 2^n × 2^n, by Schur–Weyl duality.

D Dᵀ does not change when the variables are renamed. A vector over the masked states of n variables is one of
(R²)⊗…⊗(R²); this space is a sum over the spins j = n/2, n/2 − 1, … ≥ 0 of (2j + 1)-dimensional spaces, each as many
times as j is reached by coupling n spins ½ one after another. A matrix that commutes with all renamings acts in
the same way on all copies of a spin: n/2 small blocks hold it. The change of basis is orthogonal, n passes of
Clebsch–Gordan coefficients, O(n 2^n).
"""

from functools import lru_cache
from math import comb

import numpy as np

from sftscope.decomposition.exact.lattice_program import LatticeProgram, lattice_program
from sftscope.lattice.transforms import Floats

Spins = dict[int, Floats]  # 2j → (copies, 2j + 1)


def to_spins(values: Floats) -> Spins:
    """The components of a vector over the masked states, (2^n,), by spin."""
    spins: Spins = {0: values.reshape(1, 1, -1)}  # 2j → (copies, 2j + 1, what is not coupled yet)
    while next(iter(spins.values())).shape[2] > 1:
        coupled: dict[int, list[Floats]] = {}
        for j2 in sorted(spins):
            copies, size, rest = spins[j2].shape
            down, up = np.moveaxis(spins[j2].reshape(copies, size, 2, rest // 2), 2, 0)
            rise, fall = _coefficients(j2)
            larger = np.zeros((copies, size + 1, rest // 2))
            np.multiply(up, rise, out=larger[:, 1:])
            larger[:, :-1] += fall * down
            coupled.setdefault(j2 + 1, []).append(larger)
            if j2 > 0:
                coupled.setdefault(j2 - 1, []).append(rise[:-1] * down[:, 1:] - fall[1:] * up[:, :-1])
        spins = {j2: np.concatenate(parts) for j2, parts in coupled.items()}
    return {j2: part[:, :, 0] for j2, part in spins.items()}


def from_spins(spins: Spins) -> Floats:
    """The inverse of `to_spins`, its transpose."""
    spins = {j2: part[:, :, None] for j2, part in spins.items()}
    for n_coupled in range(max(spins), 0, -1):
        rest = next(iter(spins.values())).shape[2]
        read, apart = dict.fromkeys(spins, 0), {}
        for j2 in range((n_coupled - 1) % 2, n_coupled, 2):
            copies = n_copies(n_coupled - 1, j2)
            rise, fall = _coefficients(j2)
            both = np.empty((copies, j2 + 1, 2, rest))
            larger = spins[j2 + 1][read[j2 + 1] : read[j2 + 1] + copies]
            np.multiply(fall, larger[:, :-1], out=both[:, :, 0])
            np.multiply(rise, larger[:, 1:], out=both[:, :, 1])
            read[j2 + 1] += copies
            if j2 > 0:
                smaller = spins[j2 - 1][read[j2 - 1] : read[j2 - 1] + copies]
                both[:, 1:, 0] += rise[:-1] * smaller
                both[:, :-1, 1] -= fall[1:] * smaller
                read[j2 - 1] += copies
            apart[j2] = both.reshape(copies, j2 + 1, 2 * rest)
        spins = apart
    return spins[0].reshape(-1)


def n_copies(n: int, j2: int) -> int:
    """How often the spin j2 / 2 occurs among n coupled spins ½."""
    steps = (n - j2) // 2
    return comb(n, steps) - (comb(n, steps - 1) if steps else 0)


@lru_cache(maxsize=64)
def _coefficients(j2: int) -> tuple[Floats, Floats]:
    """Of coupling a spin ½ to j: √((m + 1)/(2j + 1)) and √((2j + 1 − m)/(2j + 1)) at m = 0 … 2j, as columns."""
    m = np.arange(j2 + 1)
    return np.sqrt((m + 1) / (j2 + 1))[:, None], np.sqrt((j2 + 1 - m) / (j2 + 1))[:, None]


class NormalInverse:
    """Solves (D Dᵀ + ridge) y = b of a whole program, for any ridge > 0."""

    def __init__(self, program: LatticeProgram) -> None:
        self._blocks: dict[int, tuple[Floats, Floats]] = {}  # eigenvalues, and eigenvectors as columns
        shapes = {j2: (n_copies(program.n, j2), j2 + 1) for j2 in range(program.n % 2, program.n + 1, 2)}
        for j2, shape in shapes.items():
            block = np.empty((j2 + 1, j2 + 1))
            for m in range(j2 + 1):  # its action on one copy
                unit = {other: np.zeros(shapes[other]) for other in shapes}
                unit[j2][0, m] = 1.0
                image = program.model(program.prices(from_spins(unit)))
                block[:, m] = to_spins(image)[j2][0]
            values, vectors = np.linalg.eigh((block + block.T) / 2)
            assert shape[0] > 0
            self._blocks[j2] = np.maximum(values, 0.0), vectors

    def solve(self, right: Floats, ridge: float) -> Floats:
        """y: (2^n,)."""
        spins = to_spins(right)
        for j2, (values, vectors) in self._blocks.items():
            spins[j2] = spins[j2] @ (vectors / (values + ridge)) @ vectors.T
        return from_spins(spins)


@lru_cache(maxsize=2)
def normal_inverse(n: int) -> NormalInverse:
    return NormalInverse(lattice_program(n))
