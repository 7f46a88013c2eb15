"""The sparsest AND-OR interactions of any score vector, certified. Knows nothing of models, words or files of a run."""

from engine.decomposition.batch import MOST_VARIABLES, Decomposition, UncertifiedError, decompose

__all__ = ["MOST_VARIABLES", "Decomposition", "UncertifiedError", "decompose"]
