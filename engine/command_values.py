"""Values of the commands' options that are more than one number or name."""

from engine.errors import SftscopeError


def steps_of(text: str) -> tuple[int, ...] | None:
    """`0,8,16` as numbers; None where nothing was given."""
    if not text:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise SftscopeError(f"--steps {text!r}: expected numbers joined by commas, such as 0,8,16") from None


def shard_of(text: str) -> tuple[int, int]:
    """`I/N` as (I, N)."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise SftscopeError(f"--shard {text!r}: expected I/N with 1 ≤ I ≤ N, such as 1/4")
    return int(index), int(count)
