"""How long a piece of work takes once it is warm."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_SETTLED = 0.95  # of the fastest before: a call that takes more is no longer getting faster
_LEAST = 3


def settled_seconds(work: Callable[[], T], *, budget: float) -> tuple[float, T]:
    """(seconds of a call, a result), once calls have stopped getting faster: the mean of the last two.

    The first calls of a forward take up to twice as long as the later ones: memory is mapped, kernels are chosen.
    budget: seconds after which no further call is made; of fewer than three calls the last one counts.
    """
    seconds: list[float] = []
    while True:
        started = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - started)
        if len(seconds) >= _LEAST and seconds[-1] >= _SETTLED * min(seconds[:-1]):
            return (seconds[-1] + seconds[-2]) / 2, result
        if sum(seconds) > budget:
            return seconds[-1], result
