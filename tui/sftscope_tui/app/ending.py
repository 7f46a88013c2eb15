"""How the explorer ends when its user did not end it: by a signal, or because its terminal is gone.

Textual restores the terminal when its app ends. A signal therefore asks the app to end. One that does not within
seconds, as where the terminal takes no more output, is ended here, and the terminal restored as far as it can be.
"""

import asyncio
import contextlib
import os
import select
import signal
import sys
import termios
import threading
from collections.abc import Callable
from typing import Any

from textual.app import App

PATIENCE = 3.0  # seconds that an app has to end
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
# no more reports, lines that wrap and plain keys, as a shell wants them; then the normal screen with its cursor
_REPORTS_OFF = b"".join(b"\x1b[?%dl" % mode for mode in (2026, 2004, 2048, 1000, 1003, 1015, 1006, 1016, 1004))
_RESTORE = _REPORTS_OFF + b"\x1b[?7h\x1b[<u\x1b[?1049l\x1b[?25h"


def run_until_ended(app: App[Any]) -> int:
    """Run `app`, in the main thread; 0, or 128 and the number of the signal that ended it.

    SIGHUP stands for a terminal that is gone too, where no signal comes.
    """
    ending = _Ending(app)
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        asyncio.run(ending.run())
    except BaseException:  # what Textual does not handle leaves its screen behind
        ending.restore_terminal()
        raise
    finally:
        ending.over.set()
        for number, handler in before.items():
            signal.signal(number, handler)
    return ending.code


class _Ending:
    def __init__(self, app: App[Any]) -> None:
        self._app = app
        self._loop: asyncio.AbstractEventLoop | None = None
        self._attributes: Any = None
        with contextlib.suppress(OSError, termios.error, AttributeError, ValueError):
            self._attributes = termios.tcgetattr(sys.__stdin__)  # type: ignore[arg-type]
        self._asked, self._ask = os.pipe()
        self.over = threading.Event()
        self.code = 0

    async def run(self) -> None:
        self._loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                # not by the loop, which waits where the terminal takes no more output
                signal.signal(number, lambda number, _frame: self.ask(number))
        _in_background(self._end_when_asked)
        _in_background(_wait_for_hang_up, lambda: self.ask(signal.SIGHUP))
        await self._app.run_async()

    def ask(self, number: int) -> None:
        """Have the app end soon; from any thread, and from a signal's handler, which must take no lock.

        A handler that started a thread would wait for ever where the signal came while another one was started.
        """
        if not self.code:
            self.code = 128 + number
            os.write(self._ask, b"\0")

    def _end_when_asked(self) -> None:
        os.read(self._asked, 1)
        with contextlib.suppress(RuntimeError, AttributeError):  # it has just ended
            self._loop.call_soon_threadsafe(self._app.exit)  # type: ignore[union-attr]
        if not self.over.wait(PATIENCE):
            self._end_now()

    def restore_terminal(self) -> None:
        """Undo what Textual did to the terminal, as far as it takes that without delay."""
        with contextlib.suppress(OSError, termios.error, AttributeError, ValueError):  # gone, or never there
            if self._attributes is not None:
                termios.tcsetattr(sys.__stdin__, termios.TCSANOW, self._attributes)  # type: ignore[arg-type]
            descriptor = sys.__stderr__.fileno()  # type: ignore[union-attr]
            if select.select((), (descriptor,), (), 0)[1]:
                os.write(descriptor, _RESTORE)

    def _end_now(self) -> None:
        self.restore_terminal()
        os._exit(self.code)


def _in_background(work: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=work, args=arguments, daemon=True, name="terminal").start()


def _wait_for_hang_up(then: Callable[[], None]) -> None:
    """Textual takes the end of its input for a pause, and asks again without end."""
    poller = select.poll()
    poller.register(0, 0)  # no event is asked for: the terminal's end is always said
    with contextlib.suppress(OSError):
        if any(event & select.POLLHUP for _, event in poller.poll()):
            then()
