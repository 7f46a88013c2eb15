"""A monitor within anyone's Trainer: `from sftscope.monitor import SftscopeCallback`."""

from typing import Any


def __getattr__(name: str) -> Any:
    """The callback, imported when it is asked for: it brings PyTorch."""
    if name != "SftscopeCallback":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sftscope.monitor.callback import SftscopeCallback

    return SftscopeCallback
