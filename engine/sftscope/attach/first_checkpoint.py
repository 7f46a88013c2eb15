"""The first complete checkpoint of a training, waited for where the training is followed."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sftscope.attach.foreign_checkpoints import Found, seconds_to_settle, why_not_whole
from sftscope.attach.layouts import Layout, Source, how_to_name, unnamed_weights
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.store.checkpoints import Checkpoint, misnamed_checkpoints, why_misnamed

POLL = 5.0  # seconds between two looks at a training that is running


@dataclass(frozen=True, kw_only=True)
class Watching:
    """How a training that is running is followed: seconds between two looks, and without a new checkpoint at most."""

    poll: float = POLL
    idle: float = math.inf


def is_wanted(checkpoint: Checkpoint, steps: frozenset[int] | None) -> bool:
    """Whether a checkpoint is one of `steps`; None: all."""
    return steps is None or checkpoint.step in steps


def first_whole(source: Source, steps: frozenset[int] | None, watching: Watching | None) -> Found:
    """The first complete checkpoint of `steps` (None: of all); waits for one where there is `watching`.

    SftscopeError where none is there, or none came in time.
    """
    until = math.inf if watching is None else time.monotonic() + watching.idle
    while True:
        layout = Layout((), {})
        try:
            layout = source.look()
        except SftscopeError:
            if watching is None or time.monotonic() > until:
                raise  # else the training has not made its folder yet
        found = [part for part in layout.checkpoints if is_wanted(part, steps)]
        if watching is None:
            time.sleep(max(map(seconds_to_settle, found), default=0.0))
        reasons = [(part, why_not_whole(part)) for part in found]
        for part, reason in reasons:
            if not reason:
                return part
        if watching is None or time.monotonic() > until:
            if steps is not None and layout.checkpoints and not found:
                known = ", ".join(str(part.step) for part in layout.checkpoints)
                raise SftscopeError(f"{source}: --steps asks for none of its checkpoints; there are {known}")
            raise _nothing_whole(source, reasons, layout)
        time.sleep(watching.poll)


def last_whole(source: Source, steps: frozenset[int] | None) -> Found | None:
    """The last complete checkpoint of `steps` (None: of all) that is there now; None where there is none any more."""
    found = [part for part in source.look().checkpoints if is_wanted(part, steps) and not why_not_whole(part)]
    return max(found, key=lambda part: part.step, default=None)


def _nothing_whole(source: Source, reasons: Sequence[tuple[Checkpoint, str]], layout: Layout) -> SftscopeError:
    problems = [f"step {part.step}: {reason}" for part, reason in reasons[:3]]
    problems += [f"{safe_text(path.name, max_length=80)}: {reason}" for path, reason in layout.left_out.items()][:3]
    unknown = list(layout.left_out)
    if not problems and source.folder is not None:
        problems = [why_misnamed(path) for path in misnamed_checkpoints(source.folder)[:1]]
        unknown = unnamed_weights(source.folder)
        problems += [f"{safe_text(path.name, max_length=80)} holds weights of an unknown step" for path in unknown[:3]]
    detail = f" ({'; '.join(problems)})" if problems else ""
    remedy = "expected checkpoint-N with safetensors weights; --watch waits for one"
    return SftscopeError(f"{source}: no complete checkpoint{detail}; {how_to_name(unknown) if unknown else remedy}")
