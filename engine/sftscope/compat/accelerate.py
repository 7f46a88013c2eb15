"""accelerate: the forward of a model that it wraps for automatic mixed precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def plain_forward(model: Any) -> Iterator[None]:
    """Inside, every module runs the forward that it had before accelerate wrapped it; afterwards as before."""
    wrapped = [(part, vars(part)["forward"]) for part in model.modules() if "_original_forward" in vars(part)]
    try:
        for part, _ in wrapped:
            part.forward = part._original_forward
        yield
    finally:
        for part, forward in wrapped:
            part.forward = forward
