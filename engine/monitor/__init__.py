"""A monitor within anyone's Trainer: `from engine.monitor import SftscopeCallback`."""

from typing import Any


def __getattr__(name: str) -> Any:
    """The callback, imported when it is asked for: it brings PyTorch."""
    if name != "SftscopeCallback":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from engine.monitor.callback import SftscopeCallback

    return SftscopeCallback
