"""The explorer through a pseudo-terminal: bytes and time to paint, held against the figures of its design.

    python tests/benchmarks/bench_explorer.py [--quick]

Makes runs of 1,000 steps × 100 probes and of 10,000 small checkpoints in a temporary folder (5 words a
probe; some minutes on two cores), starts the explorer on them as a user would, presses keys, counts what
the driver writes, and reads the screen back with pyte (which has to be installed for it). `--quick` takes
a tenth of everything.
"""

import argparse
import fcntl
import os
import pty
import random
import re
import select
import shutil
import signal
import statistics
import struct
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyte

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from hostile_run import AT_THE_DRIVER, write_hostile_run
from sample_history import sample_record, step_grid, write_sample_run
from sftscope.store import RunFolder
from sftscope.store.steps.step_file import to_bytes

ROOT = Path(__file__).parents[2]
QUIET = 0.12  # seconds without a byte after which a paint is over
RIGHT, LEFT = "\x1b[C", "\x1b[D"


class Terminal:
    """The explorer as a child process on a pseudo-terminal of 80×24 cells, 256 colours."""

    def __init__(self, arguments: list[str], state: Path, size: tuple[int, int] = (80, 24)) -> None:
        self.screen = pyte.Screen(*size)
        self._stream = pyte.ByteStream(self.screen)
        self.started, self.bytes = time.perf_counter(), 0
        self.bursts: list[float] = []
        self.raw = bytearray()
        code = "from sftscope_tui.cli import main; main()"
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.environ.update(
                TERM="xterm-256color",
                XDG_STATE_HOME=str(state),
                XDG_CACHE_HOME=str(state),
                SSH_CONNECTION="x",
                PYTHONPATH=str(ROOT),
                LINES=str(size[1]),
                COLUMNS=str(size[0]),
            )
            for name in ("COLORTERM", "PYTHONDONTWRITEBYTECODE"):
                os.environ.pop(name, None)
            os.environ["PYTHONPYCACHEPREFIX"] = str(state / "pycache")  # compiled once, as an installation is
            os.chdir(ROOT)
            os.execv(sys.executable, [sys.executable, "-c", code, "explore", *arguments])
        self.resize(*size)

    def resize(self, width: int, height: int) -> None:
        """Another size of the window, as a terminal tells it."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.screen.resize(height, width)

    def read(self, seconds: float) -> bool:
        """Take what is written within `seconds`, at most one chunk; whether there was any."""
        if not select.select([self._fd], [], [], seconds)[0]:
            return False
        data = os.read(self._fd, 65_536)
        self.bytes += len(data)
        self.raw += data
        self.bursts.append(time.perf_counter())
        self._stream.feed(data)
        return True

    def until(self, there: Callable[[str], bool], timeout: float = 120) -> float:
        """Seconds until the screen shows what is looked for."""
        begin = time.perf_counter()
        while time.perf_counter() - begin < timeout:
            self.read(0.05)
            if there(self.text):
                return time.perf_counter() - begin
        raise SystemExit(f"the explorer did not show it within {timeout} s:\n{self.text}")

    def settle(self) -> None:
        """Wait until nothing is written any more."""
        while self.read(QUIET):
            pass

    def press(self, keys: str) -> tuple[float, float, int]:
        """Send keys: seconds to the first byte, seconds to the last, bytes."""
        begin, before, first = time.perf_counter(), self.bytes, 0.0
        os.write(self._fd, keys.encode())
        last = begin
        while self.read(QUIET if first else 1.0):
            last = self.bursts[-1]
            first = first or last - begin
        return first, last - begin, self.bytes - before

    @property
    def text(self) -> str:
        """The screen."""
        return "\n".join(self.screen.display)

    def memory(self) -> dict[str, float]:
        """Resident memory in MB: all, and what is not a mapped file."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return {name: int(kb) / 1024 for name, kb in re.findall(r"(VmHWM|VmRSS|RssAnon):\s+(\d+) kB", status)}

    def cpu(self) -> float:
        """Seconds of processor time so far, which a busy machine does not stretch."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def alive(self) -> bool:
        """Whether the explorer still runs."""
        return os.waitpid(self.pid, os.WNOHANG) == (0, 0)

    def close(self) -> None:
        """Quit; kill what does not."""
        if self.alive:
            os.write(self._fd, b"q")
            time.sleep(0.5)
            self.settle_dead()
        os.close(self._fd)

    def settle_dead(self) -> None:
        """Reap the child, by force where it does not end by itself."""
        for _ in range(20):
            if not self.alive_or_gone():
                return
            time.sleep(0.1)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def alive_or_gone(self) -> bool:
        """As `alive`, for a child that may be reaped already."""
        try:
            return self.alive
        except ChildProcessError:
            return False


@dataclass
class Row:
    """A line of the table."""

    what: str
    figure: str
    measured: str


def shows_numbers(text: str) -> bool:
    """The first real paint: a view with numbers."""
    return "− count" in text and "computing" not in text


def small_checkpoints(path: Path, count: int) -> Path:
    """A run of many checkpoints of two probes; the files differ in their step only."""
    write_sample_run(path, n_steps=3, n_probes=2, n=3)
    folder, rng = RunFolder(path), np.random.default_rng(0)
    effects = [rng.normal(size=(2, 8)) * (rng.random((2, 8)) < 0.5) for _ in range(2)]
    for part in effects:
        part[:, 0] = 0
        part[1, [1, 2, 4]] = 0
    for step in step_grid(count):
        folder.step_file(step).write_bytes(to_bytes(sample_record(step, effects, rng, losses={"eval": 1.0})))
    return path


def p95(values: list[float]) -> float:
    """The 95 % point."""
    return sorted(values)[min(int(0.95 * len(values)), len(values) - 1)]


def milliseconds(values: list[float]) -> str:
    """Median and 95 % point."""
    return f"p50 {1000 * statistics.median(values):.0f} ms, p95 {1000 * p95(values):.0f} ms"


def launch(run: Path, state: Path, name: str, figure: str) -> tuple[Terminal, Row]:
    """Start, and measure until numbers are on the screen."""
    terminal = Terminal([str(run)], state)
    terminal.until(shows_numbers)
    first, written, cpu = time.perf_counter() - terminal.started, terminal.bytes, terminal.cpu()
    return terminal, Row(name, figure, f"{1000 * first:.0f} ms ({1000 * cpu:.0f} ms of CPU), {written / 1000:.1f} kB")


def loaded(terminal: Terminal) -> float:
    """Seconds from the start until all is read and computed."""
    while True:
        terminal.settle()
        terminal.read(0.3)
        if "reading step files" not in terminal.text and "computing" not in terminal.text:
            return time.perf_counter() - terminal.started


def scrubbing(terminal: Terminal) -> list[Row]:
    """Cached and uncached steps, a held key, bytes, idle."""
    first, last, sizes = [], [], []
    for view in "1234":
        terminal.press(view)
        for key in [LEFT] * 6:
            terminal.press(key)
        for key in [RIGHT, LEFT] * 8:
            begun, done, size = terminal.press(key)
            first.append(begun)
            last.append(done)
            sizes.append(float(size))
    rows = [
        Row("key → paint, cached step", "p50 ≤ 33 ms, p95 ≤ 60 ms", milliseconds(last)),
        Row(
            "bytes per scrub, 80×24",
            "median ≤ 2.5 kB, p95 ≤ 6 kB",
            f"median {statistics.median(sizes):.0f} B, p95 {p95(sizes):.0f} B",
        ),
    ]
    terminal.press("2")
    terminal.press("G")
    pressed = [terminal.press("H") for _ in range(9)]
    jumps, jumped = [seconds for _, seconds, _ in pressed], [size for _, _, size in pressed]
    sent = f"median {statistics.median(jumped):.0f} B, largest {max(jumped)} B"
    rows.append(Row("bytes per ten steps, Changes", "p95 ≤ 6 kB", sent))
    rows.append(Row("key → paint, uncached step", "p95 ≤ 150 ms", milliseconds(jumps)))
    terminal.press("g")
    terminal.bursts.clear()
    held, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < 3:
        os.write(terminal._fd, RIGHT.encode())
        held += 1
        until = time.perf_counter() + 1 / 30
        while time.perf_counter() < until:
            terminal.read(max(until - time.perf_counter(), 0))
    terminal.settle()
    paints = 1 + sum(
        later - earlier > 0.02 for earlier, later in zip(terminal.bursts, terminal.bursts[1:], strict=False)
    )
    exact = f"({held + 1}/" in terminal.text
    rows.append(
        Row(
            "held key, 30 a second",
            "≤ 15 paints/s, the exact final step",
            f"{paints / 3:.1f} paints/s, {'exact' if exact else 'WRONG STEP'}",
        )
    )
    before = terminal.bytes
    begin = time.perf_counter()
    while time.perf_counter() - begin < 6:
        terminal.read(0.5)
    rows.append(Row("idle, 6 s with polling", "0 B/s", f"{(terminal.bytes - before) / 6:.0f} B/s"))
    return rows


def resizes(terminal: Terminal, count: int) -> Row:
    """Random sizes in every view."""
    rng = random.Random(0)
    for index in range(count):
        terminal.resize(rng.randint(20, 220), rng.randint(5, 60))
        if index % 10 == 0:
            os.write(terminal._fd, rng.choice("12345678").encode())
        terminal.read(0.02)
    terminal.resize(80, 24)
    terminal.settle()
    crashed = not terminal.alive
    return Row(f"random resizes, {count}", "0 crashes", "CRASHED" if crashed else "0 crashes")


def big_table(folder: Path, state: Path) -> Row:
    """100,000 interactions in Changes."""
    run = folder / "wide"
    if not run.exists():
        write_sample_run(run, n_steps=4, n_probes=64, n=11)
    terminal = Terminal([str(run), "--view", "changes"], state, (99, 30))
    terminal.until(lambda text: "newly emerged" in text)
    terminal.settle()
    counts = [int(number) for number in re.findall(r"[−=+] (\d+) (?:removed|preserved|newly)", terminal.text)]
    loaded(terminal)
    paints = [terminal.press(key)[1] for key in ["g", "G"] * 4]
    terminal.press("/")
    filters = [terminal.press(key)[1] for key in "smil\x7f\x7f\x7f\x7f"]
    terminal.press("\r")
    terminal.close()
    return Row(
        f"{sum(counts):,} interactions in the table",
        "paint ≤ 100 ms; filter ≤ 100 ms a key",
        f"paint {milliseconds(paints)}; filter {milliseconds(filters)}",
    )


def hostile(folder: Path, state: Path, count: int) -> Row:
    """Hostile strings in every field of a run, and all views of every probe: what of them reaches the terminal."""
    run, n = folder / f"hostile{count}", 5
    n_probes = count // (n + 4) + 1
    if not run.exists():
        write_hostile_run(run, random.Random(0), n_probes=n_probes, n=n)
    terminal = Terminal([str(run)], state, (120, 30))
    terminal.until(shows_numbers)
    loaded(terminal)
    for view in "12345678":
        terminal.press(view)
    terminal.press("5")
    for _ in range(n_probes):  # each probe with its words, id, target and prompt
        os.write(terminal._fd, b"p")
        terminal.read(0.1)
    terminal.press("2")
    for _ in range(n_probes // 10):
        os.write(terminal._fd, b"\x1b[6~")
        terminal.read(0.1)
    terminal.settle()
    alive, found = terminal.alive, sum(terminal.raw.count(sequence.encode()) for sequence in AT_THE_DRIVER)
    terminal.close()
    shown = terminal.raw.count(b"HXQ")
    result = f"{found} sequences in {shown} strings drawn" + ("" if alive else ", CRASHED")
    return Row(f"hostile strings, {n_probes * (n + 4)}", "0 control bytes from data", result)


def export(run: Path, folder: Path) -> Row:
    """The report of the run twice."""
    from sftscope.analysis.run.read_run import load_history
    from sftscope.analysis.sets.evolution import Evolution
    from sftscope.reporting.forms import write_report

    evolution = Evolution(load_history(run))
    begin, used = time.perf_counter(), time.process_time()
    first = [path.read_bytes() for path in write_report(evolution, folder / "one")]
    seconds, cpu = time.perf_counter() - begin, time.process_time() - used
    second = [path.read_bytes() for path in write_report(evolution, folder / "two")]
    same = "byte-identical" if first == second else "DIFFERENT"
    return Row("export of the report", "≤ 5 s, byte-identical", f"{seconds:.1f} s ({cpu:.1f} s of CPU), {same}")


def measure(run: Path, many: Path, folder: Path, state: Path, scale: int) -> Iterator[Row]:
    """Every row of the table, as it is measured."""
    terminal, cold = launch(run, state, f"launch, {1000 // scale} steps, first time", "")
    yield cold
    yield Row("all of it read and computed", "in the background", f"{loaded(terminal):.1f} s")
    yield from scrubbing(terminal)
    memory = terminal.memory()
    parts = f"{memory['VmRSS']:.0f} MB, {memory['RssAnon']:.0f} without mapped files, peak {memory['VmHWM']:.0f}"
    yield Row("memory", "≤ 150 MB", parts)
    yield resizes(terminal, 500 // scale)
    terminal.close()
    terminal, warm = launch(run, state, f"launch, {1000 // scale} steps, warm", "≤ 600 ms, ≤ 30 kB")
    yield warm
    terminal.close()
    terminal, cold = launch(many, state, f"{10_000 // scale} checkpoints, cold", "paint ≤ 1 s")
    yield cold
    yield Row("all of them read", "in the background", f"{loaded(terminal):.1f} s")
    terminal.close()
    yield big_table(folder, state)
    yield hostile(folder, state, 10_000 // scale)
    yield export(run, folder)


def main() -> None:
    """Make the runs, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--keep", type=Path, help="folder to keep the runs in, and to find them in again")
    options = parser.parse_args()
    scale = 10 if options.quick else 1
    folder = options.keep or Path(tempfile.mkdtemp(prefix="sftscope-bench-"))
    state = folder / "state"
    run, many = folder / f"run{1000 // scale}", folder / f"many{10_000 // scale}"
    if not run.exists():
        write_sample_run(run, n_steps=1000 // scale, n_probes=100, n=5)
    if not many.exists():
        small_checkpoints(many, 10_000 // scale)
    print(f"{1000 // scale} steps × 100 probes of 5 words, {10_000 // scale} small checkpoints; 80×24, 256 colours")
    for row in measure(run, many, folder, state, scale):
        print(f"{row.what:<36}  {row.figure:<36}  {row.measured}", flush=True)
    if not options.keep:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
