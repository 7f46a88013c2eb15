"""A process of its own for what may crash, hang or fill the memory: files and templates of unknown origin.

One child serves a whole process, question after question, and is replaced when it dies. It runs the modules of its
parent and nothing from the working folder, ends with its parent, and gives up by itself what it will not need.
Knows nothing of the questions.
"""

import atexit
import contextlib
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sftscope.errors import SftscopeError

_PIPE_BYTES = 2**20
Answer = TypeVar("Answer")


class ChildEndedError(Exception):
    """No answer: the child took too long, or the question ended it. The text says which."""


class Child:
    """The child, started when it is first needed; for all threads, one question at a time.

    module: has `serve()`, which answers questions until its standard input is closed. work: what it does, for errors.
    late: how many answers took too long so far.
    """

    def __init__(self, module: str, work: str) -> None:
        self._module, self._work = module, work
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self.late = 0
        atexit.register(self.stop)

    def ask(
        self, exchange: Callable[[subprocess.Popen[bytes]], Answer], seconds: float, *, passes: type[Exception]
    ) -> Answer:
        """What `exchange` makes of the child, which is killed after `seconds`.

        passes: the exception by which `exchange` tells an answer that is an error. ChildEndedError where there is none.
        """
        with self._lock:
            process = self._running()
            late = threading.Event()

            def kill() -> None:
                late.set()
                process.kill()

            watchdog = threading.Timer(seconds, kill)
            watchdog.daemon = True
            watchdog.start()
            try:
                return exchange(process)
            except passes:
                raise
            except (OSError, EOFError, ValueError) as error:
                self.stop()
                self.late += late.is_set()
                ended = (
                    f"took too long (over {seconds:.3g} s)"
                    if late.is_set()
                    else f"ended its process ({_ending(process)})"
                )
                raise ChildEndedError(ended) from error
            except BaseException:  # Ctrl-C in the middle of an answer: the next question needs a fresh child
                self.stop()
                raise
            finally:
                watchdog.cancel()

    @property
    def is_running(self) -> bool:
        """Whether there is a child of this process that has not ended."""
        return self._process is not None and self._owner == os.getpid() and self._process.poll() is None

    def start(self) -> None:
        """Have a child."""
        with self._lock:
            self._running()

    def stop(self) -> None:
        """End the child; not the one of a parent that this process was forked from."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # what was not sent yet needs no reader any more
                pipe.close()  # type: ignore[union-attr]

    def _running(self) -> subprocess.Popen[bytes]:
        if not self.is_running or self._process is None:
            self.stop()
            self._process, self._owner = start_child(self._module, self._work), os.getpid()
        return self._process


def same_modules(code: str, *arguments: str) -> list[str]:
    """The command that runs `code` in another process with the modules of this one.

    It has this process's module path, and nothing that lies in the working folder, which may be a stranger's, or in a
    PYTHONPATH that has changed since. arguments: its sys.argv[1:].
    """
    path = [entry for entry in sys.path if Path(entry).is_absolute()]
    return [sys.executable, "-I", "-c", f"import sys; sys.path[:] = {path!r}; {code}", *arguments]


def start_child(module: str, work: str) -> subprocess.Popen[bytes]:
    """The child, which runs the modules of its parent."""
    try:
        process = subprocess.Popen(
            same_modules(f"from {module} import serve; serve()"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the parent
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
    except OSError as error:
        raise SftscopeError(
            f"{work} in a process of their own, which cannot be started: {error.strerror or error}; "
            "end other processes or raise the limit on processes and memory"
        ) from error
    with contextlib.suppress(OSError, ImportError, AttributeError):  # only Linux has larger pipes; they are faster
        import fcntl

        for pipe in (process.stdin, process.stdout):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)  # type: ignore[arg-type]
    return process


def _ending(process: subprocess.Popen[bytes]) -> str:
    code = process.poll()
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


# In the child.


def confine() -> int:
    """No core dump, no file written and no process from here on.

    Returns the address space used so far, in bytes, or 0 where only the system knows it.
    """
    statm = Path("/proc/self/statm")  # only Linux has it, and a limit on the address space that holds
    base = int(statm.read_text().split()[0]) * resource.getpagesize() if statm.exists() else 0
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):
        resource.setrlimit(limit, (0, 0))
    return base


def limit_memory(size: int) -> None:
    """At most `size` bytes of address space."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))
