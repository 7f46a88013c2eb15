"""One background thread that reads and computes what takes long; results come as messages.

Knows nothing of widgets, and nothing of what a job is about.
"""

import threading
from collections.abc import Callable, Hashable
from enum import IntEnum
from itertools import count
from queue import PriorityQueue
from typing import Any

from textual.message import Message
from textual.message_pump import MessagePump

from sftscope.foundation.errors import SftscopeError


class Urgency(IntEnum):
    """What is worked off first."""

    STOP = 0
    SHOWN = 1  # the screen waits for it
    RUN = 2  # reading a run, a little at a time
    SPARE = 3  # nobody waits


class Done(Message):
    """A job of the loader is finished: its key with a value, or the error that ended it, whatever kind that is."""

    def __init__(self, key: Hashable, value: Any, error: BaseException | None = None) -> None:
        super().__init__()
        self.key, self.value, self.error = key, value, error

    @property
    def failure(self) -> str:
        """Why there is no value, in one line; empty where there is one."""
        return "" if self.error is None else failure_of(self.error)


def failure_of(error: BaseException) -> str:
    """One line about an error that ended a job."""
    if isinstance(error, SftscopeError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
    if isinstance(error, MemoryError):
        return "not enough memory for this"
    return f"not to be read or computed: {type(error).__name__}: {error}"


class Loader:
    """One daemon thread that works off jobs, the urgent first, and posts each result to `target`."""

    def __init__(self, target: MessagePump) -> None:
        self._target = target
        self._jobs: PriorityQueue[tuple[Urgency, int, Hashable, Callable[[], Any]]] = PriorityQueue()
        self._number = count()
        self._waiting: set[Hashable] = set()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="sftscope-loader", daemon=True)

    @property
    def busy(self) -> bool:
        """Whether a result is still to come."""
        return bool(self._waiting)

    def request(self, key: Hashable, job: Callable[[], Any], urgency: Urgency = Urgency.SHOWN) -> None:
        """Have `job` done, unless the same key is under way, or the screen is closing: a timer may still fire then."""
        if self._stopped or key in self._waiting:
            return
        self._waiting.add(key)
        self._put(urgency, key, job)
        if not self._thread.is_alive():
            self._thread.start()

    def received(self, done: Done) -> None:
        """The screen has taken a result."""
        self._waiting.discard(done.key)

    def tell(self, key: Hashable, value: Any) -> None:
        """For a job under way: a result of its own before the job's, such as how far it is."""
        self._target.post_message(Done(key, value))

    def stop(self) -> None:
        """End the thread after its present job; what is requested from now on is not done."""
        self._stopped = True
        self._put(Urgency.STOP, None, lambda: None)

    def _put(self, urgency: Urgency, key: Hashable, job: Callable[[], Any]) -> None:
        self._jobs.put((urgency, next(self._number), key, job))

    def _work(self) -> None:
        while True:
            urgency, _, key, work = self._jobs.get()
            if urgency is Urgency.STOP:
                return
            try:
                done = Done(key, work())
            except BaseException as error:  # handed to the screen, which shows it and stays
                done = Done(key, None, error)
            self._target.post_message(done)
