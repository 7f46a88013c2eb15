"""A function over many items on several threads: results in order, errors and Ctrl-C as if it had been a loop.

For work that spends its time outside Python's lock. Knows nothing of what the work is.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_WORKERS = 8  # beyond it threads wait for Python's lock


class _StoppedError(Exception):
    """Another item failed, or the user interrupted."""


def in_order(
    work: Callable[[Item, Callable[[], None]], Result], items: Sequence[Item], workers: int
) -> Iterator[Result]:
    """work(item, check) of each item, in the items' order.

    `work` calls `check()` now and then: it raises where the others' results are no longer wanted. An exception
    of an item is raised at its place in the order.
    """
    if workers <= 1 or len(items) <= 1:
        for item in items:
            yield work(item, lambda: None)
        return
    stop = threading.Event()

    def check() -> None:
        if stop.is_set():
            raise _StoppedError

    def run(item: Item) -> Result:
        check()
        return work(item, check)

    with ThreadPoolExecutor(min(workers, len(items)), thread_name_prefix="decompose") as pool:
        futures = [pool.submit(run, item) for item in items]
        try:
            for future in futures:
                yield future.result()
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keeps OpenBLAS from spinning on busy cores, where threads make small matrices 1000 times slower."""
    try:
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        yield
        return
    with threadpool_limits(1, user_api="blas"):
        yield


@contextmanager
def threads_kept() -> Iterator[None]:
    """Restores numbers of threads that code inside changes: LightGBM sets that of a libgomp shared with PyTorch."""
    try:
        from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        yield
        return
    with ThreadpoolController().limit(limits=None):  # limits nothing, restores all
        yield
