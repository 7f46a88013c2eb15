"""The sparsest AND-OR interactions of any score vector, certified. Knows nothing of models, words or files of a run."""

from sftscope.decomposition.batch import MOST_VARIABLES, Decomposition, Points, UncertifiedError, decompose
from sftscope.decomposition.exact.interior_point import Iterate
from sftscope.decomposition.exact.lattice_program import LatticeProgram, lattice_program

__all__ = [
    "MOST_VARIABLES",
    "Decomposition",
    "Iterate",
    "LatticeProgram",
    "Points",
    "UncertifiedError",
    "decompose",
    "lattice_program",
]
