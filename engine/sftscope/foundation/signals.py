"""A signal that asks this process to end is an interruption like Ctrl-C: what holds something lets it go, in order.

SIGTERM comes from schedulers and `kill`, SIGHUP from a terminal or a connection that is closed.
"""

import signal

ASK_TO_END = (signal.SIGTERM, signal.SIGHUP)
_received = int(signal.SIGINT)


def interrupt_on_signals() -> None:
    """From here on these signals raise KeyboardInterrupt in the main thread; not those ignored, as under nohup."""
    for number in ASK_TO_END:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def interrupted_exit_code() -> int:
    """128 and the number of the signal, as shells have it: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
    return 128 + _received


def _interrupt(number: int, _frame: object) -> None:
    global _received  # the exception does not survive the libraries that it passes through
    _received = number
    raise KeyboardInterrupt
