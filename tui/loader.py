"""One thread beside the screen that reads and computes what takes long; results come as messages.

Knows nothing of widgets, and nothing of what a job is about.
"""

import threading
from collections.abc import Callable, Hashable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from textual.message import Message
from textual.message_pump import MessagePump

from engine.analysis.history import RunHistory, load_history
from engine.errors import SftscopeError


class Done(Message):
    """A job of the loader is finished: its key with a value, or the error that ended it."""

    def __init__(self, key: Hashable, value: Any, error: BaseException | None = None) -> None:
        super().__init__()
        self.key, self.value, self.error = key, value, error


class Loader:
    """One daemon thread that works off jobs in turn and posts each result to `target`."""

    def __init__(self, target: MessagePump) -> None:
        self._target = target
        self._jobs: SimpleQueue[tuple[Hashable, Callable[[], Any]] | None] = SimpleQueue()
        self._waiting: set[Hashable] = set()
        self._thread = threading.Thread(target=self._work, name="sftscope-loader", daemon=True)

    @property
    def busy(self) -> bool:
        """Whether a result is still to come."""
        return bool(self._waiting)

    def request(self, key: Hashable, job: Callable[[], Any]) -> None:
        """Have `job` done, unless the same key is under way."""
        if key in self._waiting:
            return
        self._waiting.add(key)
        self._jobs.put((key, job))
        if not self._thread.is_alive():
            self._thread.start()

    def received(self, done: Done) -> None:
        """The screen has taken a result."""
        self._waiting.discard(done.key)

    def stop(self) -> None:
        """End the thread after its present job."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            key, work = job
            try:
                done = Done(key, work())
            except BaseException as error:  # handed to the screen, which raises what is no SftscopeError
                done = Done(key, None, error)
            self._target.post_message(done)


def load_job(path: Path) -> RunHistory:
    """Read the run; an error of the file system becomes one line."""
    try:
        return load_history(path)
    except OSError as error:
        raise SftscopeError(f"{path}: cannot be read: {error.strerror or error}") from None
