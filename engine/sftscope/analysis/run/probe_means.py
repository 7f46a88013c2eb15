"""Means over probes of what is undefined for some, and their errors."""

from collections.abc import Sequence

import numpy as np

from sftscope.lattice.transforms import Floats


def mean_over_probes(values: Floats | Sequence[Floats]) -> list[float]:
    """Mean over the probes (P, T) whose value is defined, NaN where none is: T long; empty without probes."""
    if not len(values):
        return []
    table = np.array(values)
    defined = ~np.isnan(table)
    count = defined.sum(axis=0)
    total = np.where(defined, table, 0.0).sum(axis=0)
    mean: list[float] = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0).tolist()
    return mean


def two_errors(values: Floats | Sequence[Floats]) -> list[float]:
    """Two standard errors of the mean over the probes (P, T) whose value is defined: T long, NaN for less than two."""
    if not len(values):
        return []
    table = np.array(values)
    defined = ~np.isnan(table)
    count = defined.sum(axis=0)
    mean = np.array(mean_over_probes(values))
    squares = np.where(defined, (table - mean) ** 2, 0.0).sum(axis=0)
    several = count > 1
    variance = np.divide(squares, count * (count - 1), out=np.full(count.shape, np.nan), where=several)
    errors: list[float] = (2 * np.sqrt(variance)).tolist()
    return errors
