"""A process of its own for what may crash, hang or fill the memory: files and templates of unknown origin.

One child serves a whole process, question after question, and is replaced when it dies. It runs the modules of its
parent and nothing from the working folder, ends with its parent, and gives up by itself what it will not need.
Knows nothing of the questions.

A question is given seconds of computing, which the kernel counts: neither a slow disk, nor a busy machine, nor Ctrl-Z
uses them up. How long a child takes to start is not limited, and how it ended says whose doing that was: `Ending`.
"""

import atexit
import contextlib
import json
import mmap
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import IO, Any, TypeVar

from sftscope.foundation.progress import say
from sftscope.foundation.safe_text import safe_text

_PIPE_BYTES = 2**20
_READY = b"sftscope ready\n"
SLOW_SECONDS = 10.0  # of starting, after which a line says what is waited for
LOOK_SECONDS = 1.0  # between two looks at a child that has not answered yet
STALLED_LOOKS, LEAST_LOOKS = 30, 4  # at a child that sleeps and uses no processor, before it is ended
_ENDING_SECONDS = 5.0  # a child that has closed its pipe is about to end
_TRIES = 3
_PATIENCE = 3  # questions one after the other that the machine spoiled, after which none gets a second try
# not SIGBUS: the kernel sends it where a page of a library cannot be read from its disk
_CRASHES = ("SIGSEGV", "SIGABRT", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS")
Answer = TypeVar("Answer")


class Ending(Enum):
    """How a child ended that was asked something."""

    CRASHED = auto()  # twice the same way, each time in a fresh child: the question's doing
    SPENT = auto()  # it needed more computing than it was given
    MACHINE = auto()  # killed by somebody or for want of memory, or stuck: nothing is known of the question
    NOT_STARTED = auto()  # nor can be of any other


class ChildEndedError(Exception):
    """No answer. The text says what happened, as the end of a sentence that begins with "it"."""

    def __init__(self, said: str, how: Ending) -> None:
        super().__init__(said)
        self.how = how


class Child:
    """The child, started when it is first needed; for all threads, one question at a time.

    module: has `serve()`, which calls `ready()` and answers questions until its standard input is closed. work: what it
    does, for errors. late: how many questions needed more computing than they were given so far.
    """

    def __init__(self, module: str, work: str) -> None:
        self._module, self._work = module, work
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._is_ready = False
        self._stalls = self._spoiled = 0
        self.late = 0
        atexit.register(self.stop)

    def ask(
        self,
        exchange: Callable[[subprocess.Popen[bytes], float], Answer],
        seconds: Sequence[float],
        *,
        passes: type[Exception],
    ) -> Answer:
        """What `exchange` makes of the child and the seconds of computing that it may ask for.

        A child that ends is replaced, and asked again: with the next of `seconds` where it had spent what it was given.
        passes: the exception by which `exchange` tells an answer that is an error. ChildEndedError where there is none.
        """
        ends: list[str] = []
        given = 0
        while True:
            try:
                with self._lock:
                    answer = self._asked_once(exchange, seconds[given], passes)
                self._spoiled = 0
                return answer
            except ChildEndedError as error:
                if error.how is Ending.SPENT:
                    given += 1
                    if given == len(seconds):
                        self.late += 1
                        raise
                    continue
                is_crash = error.how is Ending.CRASHED
                if str(error) in ends or (not is_crash and self._spoiled >= _PATIENCE):
                    self._spoiled += not is_crash
                    raise
                if len(ends) + 1 == _TRIES:
                    raise ChildEndedError(f"ended in {_TRIES} ways, at last it {error}", Ending.MACHINE) from error
                ends.append(str(error))

    def start(self) -> None:
        """Have a child, which is waited for when it is first asked."""
        with self._lock:
            self._running()

    def stop(self) -> None:
        """End the child; not the one of a parent that this process was forked from."""
        process, self._process, self._is_ready = self._process, None, False
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that waits for a dead disk ends with its disk
            process.wait(_ENDING_SECONDS)
        for pipe in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):  # what was not sent yet needs no reader any more
                pipe.close()  # type: ignore[union-attr]

    def _asked_once(
        self, exchange: Callable[[subprocess.Popen[bytes], float], Answer], seconds: float, passes: type[Exception]
    ) -> Answer:
        process = self._running()
        try:
            self._await_ready(process)
            watch = _Watch(process, max(STALLED_LOOKS >> self._stalls, LEAST_LOOKS))
        except RuntimeError as error:  # no thread can be started
            raise ChildEndedError(f"cannot be watched: {error}", Ending.NOT_STARTED) from error
        try:
            return exchange(process, seconds)
        except passes:
            raise
        except (OSError, EOFError) as error:
            how, said = self._ending(process)
            self.stop()
            if watch.is_stalled:
                self._stalls += 1
                how, said = Ending.MACHINE, "neither computed nor answered"
            elif how is Ending.SPENT:
                said = f"needs over {seconds:.3g} s of computing"
            raise ChildEndedError(said, how) from error
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            self.stop()
            raise ChildEndedError("gave an answer that is none", Ending.CRASHED) from error
        except BaseException:  # Ctrl-C in the middle of an answer: the next question needs a fresh child
            self.stop()
            raise
        finally:
            watch.end()

    def _running(self) -> subprocess.Popen[bytes]:
        is_ours = self._process is not None and self._owner == os.getpid()
        if not is_ours or self._process is None or self._process.poll() is not None:
            self.stop()
            self._process, self._owner = start_child(self._module, self._work), os.getpid()
        return self._process

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until the child has imported what it needs, as long as it lives; a line where that takes long."""
        if self._is_ready:
            return
        assert process.stdout is not None
        slow = f"{self._work} in a process of their own, which is still starting: a slow disk or a busy machine"
        notice = threading.Timer(SLOW_SECONDS, say, [slow])
        notice.daemon = True
        notice.start()
        try:
            said = process.stdout.readline(len(_READY))
        except BaseException:  # Ctrl-C
            self.stop()
            raise
        finally:
            notice.cancel()
        if said != _READY:
            how = self._ending(process)[1]
            last = _last_line(process)
            self.stop()
            raise ChildEndedError(f"{how} as it started{last and f': {last}'}", Ending.NOT_STARTED)
        self._is_ready = True

    @staticmethod
    def _ending(process: subprocess.Popen[bytes]) -> tuple[Ending, str]:
        """How a child ended whose pipe is closed, and in words."""
        try:
            code = process.wait(_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            return Ending.MACHINE, "closed its pipe without ending its process"
        if code == -signal.SIGPROF:
            return Ending.SPENT, "needs too much computing"
        if code >= 0:
            return Ending.CRASHED, f"ended its process (exit code {code})"
        is_crash = any(hasattr(signal, name) and -code == getattr(signal, name) for name in _CRASHES)
        return (
            (Ending.CRASHED, f"ended its process (signal {-code})")
            if is_crash
            else (Ending.MACHINE, f"was ended by signal {-code}")
        )


class _Watch:
    """Ends a child that neither computes nor answers; a thread of its own.

    It counts looks, not seconds: while this process is stopped there are none. A child that is stopped, waits for a
    disk or waits for a processor is left alone.
    """

    def __init__(self, process: subprocess.Popen[bytes], looks: int) -> None:
        self.is_stalled = False
        self._process, self._looks = process, looks
        self._done = threading.Event()
        threading.Thread(target=self._work, name="sftscope-watch", daemon=True).start()

    def end(self) -> None:
        self._done.set()

    def _work(self) -> None:
        asleep, before = 0, None
        while not self._done.wait(LOOK_SECONDS):
            now = activity(self._process.pid)
            asleep = asleep + 1 if now is not None and now.is_asleep and now == before else 0
            before = now
            if asleep >= self._looks:
                self.is_stalled = True
                self._process.kill()
                return


@dataclass(frozen=True)
class Activity:
    """What a process does: whether it sleeps, and how much it has computed so far, in whatever unit."""

    is_asleep: bool
    computed: str


def activity(pid: int) -> Activity | None:
    """What the system says of a process; None where it says nothing."""
    try:
        if sys.platform == "linux":
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return Activity(fields[0] == "S", f"{fields[11]} {fields[12]}")
        said = subprocess.run(
            ["/bin/ps", "-o", "state=,time=", "-p", str(pid)], capture_output=True, text=True, check=True
        ).stdout.split()
        return Activity(said[0][0] in "SI", said[1])
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return None


def receive(pipe: IO[bytes], most: int = -1) -> dict[str, Any]:
    """The JSON object in the next line of a pipe, of at most `most` bytes.

    EOFError where the other side has ended or writes more, ValueError where the line holds anything else.
    """
    line = pipe.readline(most)
    if not line.endswith(b"\n"):
        raise EOFError
    content = json.loads(line)
    if not isinstance(content, dict):
        raise ValueError("expected a JSON object")
    return content


def same_modules(code: str, *arguments: str) -> list[str]:
    """The command that runs `code` in another process with the modules of this one.

    It has this process's module path, and nothing that lies in the working folder, which may be a stranger's, or in a
    PYTHONPATH that has changed since. arguments: its sys.argv[1:].
    """
    path = [entry for entry in sys.path if Path(entry).is_absolute()]
    return [sys.executable, "-I", "-c", f"import sys; sys.path[:] = {path!r}; {code}", *arguments]


def start_child(module: str, work: str) -> subprocess.Popen[bytes]:
    """The child, which runs the modules of its parent; ChildEndedError where it cannot be started."""
    ours = theirs = -1
    try:
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)
        os.set_blocking(theirs, False)  # what says more than anybody reads does not wait for a reader
        process = subprocess.Popen(
            same_modules(f"from {module} import serve; serve()"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=theirs,
            start_new_session=True,  # Ctrl-C is for the parent
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
    except (OSError, MemoryError) as error:
        reason = error.strerror or error if isinstance(error, OSError) else "not enough memory"
        named = f"{safe_text(str(error.filename))}: " if isinstance(error, OSError) and error.filename else ""
        if ours >= 0:
            os.close(ours)
        raise ChildEndedError(f"cannot be started: {named}{reason}", Ending.NOT_STARTED) from error
    finally:
        if theirs >= 0:
            os.close(theirs)
    process.stderr = open(ours, "rb", buffering=0)  # noqa: PTH123, SIM115  # closed with the child
    with contextlib.suppress(OSError, ImportError, AttributeError):  # only Linux has larger pipes; they are faster
        import fcntl

        for pipe in (process.stdin, process.stdout):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)  # type: ignore[arg-type]
    return process


def _last_line(process: subprocess.Popen[bytes]) -> str:
    """The last that a child said on stderr, such as which module it could not import; safe to show."""
    assert process.stderr is not None
    said = b""
    with contextlib.suppress(OSError):
        said = process.stderr.read(_PIPE_BYTES) or b""
    lines = said.decode(errors="replace").strip().split("\n")
    return safe_text(lines[-1].strip(), max_length=200)


# In the child.


def ready() -> None:
    """Tell the parent that questions can come. Nothing else is written before the first answer."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # a parent may have had it ignored or blocked
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPROF])
    sys.stdout.buffer.write(_READY)
    sys.stdout.buffer.flush()


@contextlib.contextmanager
def computing(seconds: float) -> Iterator[None]:
    """The kernel ends this process once the block has used `seconds` of the processor."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


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


def is_machine_short(size: int) -> bool:
    """Whether the machine, or a limit of the user's, does not give `size` bytes more; lifts our own limit.

    Asked after a MemoryError: where it does give them, the question wanted more than it was due.
    """
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    try:
        mmap.mmap(-1, size).close()
    except (OSError, MemoryError):
        return True
    return False
