"""A program on a pseudo-terminal, for tests: everything it writes, keys and sizes for it, and how it ends."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence

SFTSCOPE = "from sftscope_tui.cli import main; main()"
PATIENCE = 60.0  # seconds for what must happen: a machine may be busy
SILENCE = 1.0  # seconds without a byte, after which a screen is complete


def _heed_signals() -> None:
    """As in a window of its own: `nohup`, and a shell's `&`, leave these ignored in all that is started later."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class PseudoTerminal:
    """Python on a terminal of `size` columns and lines.

    elsewhere: standard streams that are no terminal, such as stdin=subprocess.DEVNULL. An empty value in `environ`
    unsets the variable.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        code: str = SFTSCOPE,
        size: tuple[int, int] = (80, 24),
        environ: Mapping[str, str] | None = None,
        **elsewhere: int,
    ) -> None:
        self._ours, theirs = pty.openpty()
        self.written = b""
        self._set_size(*size)
        wanted = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "", "LINES": "", **(environ or {})}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env={name: value for name, value in wanted.items() if value},
            preexec_fn=_heed_signals,
            **{"stdin": theirs, "stdout": theirs, "stderr": theirs, **elsewhere},  # type: ignore[call-overload]
        )
        os.close(theirs)

    @property
    def text(self) -> str:
        """Everything that was written."""
        return self.written.decode(errors="replace")

    def read(self, seconds: float) -> bytes:
        """What is written next, within `seconds`; empty where nothing is, or the program has ended."""
        if not select.select([self._ours], [], [], seconds)[0]:
            return b""
        try:
            data = os.read(self._ours, 65_536)
        except OSError:  # the other side is closed
            data = b""
        self.written += data
        return data

    def shows(self, text: str, since: int = 0) -> None:
        """Wait until `text` is written, after the first `since` bytes."""
        deadline = time.monotonic() + PATIENCE
        while text.encode() not in self.written[since:]:
            assert time.monotonic() < deadline, f"{text!r} was not written: {self.written[since:][-500:]!r}"
            assert self.read(SILENCE) or self.process.poll() is None, f"it ended: {self.written[since:][-500:]!r}"

    def settle(self) -> None:
        """Wait until nothing is written for a second."""
        deadline, before = time.monotonic() + PATIENCE, len(self.written)
        while self.read(SILENCE):
            assert time.monotonic() < deadline, f"it never rests: {len(self.written) - before} bytes"

    def press(self, keys: str) -> None:
        """Type on it."""
        os.write(self._ours, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Another size of the window, as a terminal tells it."""
        self._set_size(columns, lines)
        self.process.send_signal(signal.SIGWINCH)

    def ended(self) -> int:
        """Wait for the end; the exit status."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end: {self.written[-500:]!r}"
            self.read(0.05)
        while self.read(0.05):
            pass
        self.close()
        return self.process.returncode

    def close(self) -> None:
        """Kill what still runs, and let the terminal go."""
        self.process.kill()
        self.process.wait()
        if self._ours >= 0:
            os.close(self._ours)
            self._ours = -1

    def _set_size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
