"""The process next to a training that extracts the checkpoints which the callback copies into the run.

The run folder is its queue and its memory: killed and restarted, it resumes. It ends
when the training has, and nothing is left to do. It shares no memory, device or random state with the training.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sftscope.files.atomic import is_alive
from sftscope.files.opening import open_to_append
from sftscope.foundation.errors import NotReadError, SftscopeError
from sftscope.foundation.progress import say
from sftscope.foundation.sandbox import same_modules
from sftscope.foundation.streams import protect_streams
from sftscope.foundation.threads import set_thread_defaults
from sftscope.monitor.headline import append_headline, make_headline, read_headlines
from sftscope.store import RunFolder
from sftscope.store.checkpoints import ready_checkpoints

if TYPE_CHECKING:
    from sftscope.extraction.job import Work

POLL = 1.0
_NICE = 10
# of torchrun, accelerate and DeepSpeed: a process of its own is none of their ranks
_LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "MASTER_ADDR")
_LAUNCHER_PREFIXES = ("ACCELERATE_", "FSDP_", "TORCHELASTIC_", "DEEPSPEED_", "PARALLELISM_CONFIG_")


def start(out: Path) -> subprocess.Popen[bytes]:
    """Start the sidecar of the run `out`; what it says goes to `sidecar.log` there."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in (*_LAUNCHER, "MASTER_PORT") and not name.startswith(_LAUNCHER_PREFIXES)
    }
    set_thread_defaults(environment)
    with open(open_to_append(out / "sidecar.log"), "ab") as log:  # noqa: PTH123  # a descriptor has no path
        return subprocess.Popen(
            same_modules("from sftscope.monitor.sidecar import main; main()", str(out.absolute()), str(os.getpid())),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,  # Ctrl-C of the training is not its own
        )


def ended_file(folder: RunFolder) -> Path:
    """There once the training is over."""
    return folder.path / "training_ended"


def serve(out: Path, parent: int) -> None:
    """Extract the copies in the run `out` as they come, until the training `parent` is over."""
    from sftscope.extraction.extract import follow
    from sftscope.extraction.job import enter_step
    from sftscope.monitor.eval_rows import read_rows
    from sftscope.runs import pipeline

    settings, folder, identity = pipeline.open_run(out)
    held_out = read_rows(folder)
    told = {headline.step for headline in read_headlines(folder, 0)[0]}
    seen: set[int] = set()

    def more() -> bool:
        while True:
            over = ended_file(folder).exists() or not is_alive(parent)  # asked first: nothing comes after it
            try:
                ready = set(ready_checkpoints(folder.checkpoints))
            except NotReadError:
                if over:
                    raise
                ready = seen  # looked at again
            if ready - seen:
                seen.update(ready)
                return True
            if over:
                return False
            time.sleep(POLL)

    def made(step: int) -> None:
        headline = None if step in told else make_headline(folder)
        if headline is not None and headline.step not in told:
            append_headline(folder, headline)
            told.add(headline.step)

    def with_model(work: "Work", step: int) -> None:
        if held_out is not None:
            enter_step(work, step)  # the scores may come from a draft
            held_out.measure(work.slot.model, folder, step)

    follow(settings, folder, identity=identity, more=more, made=made, with_model=with_model)


def main() -> None:
    """The sidecar of the run sys.argv[1], next to the training whose process is sys.argv[2]."""
    out, parent = Path(sys.argv[1]), int(sys.argv[2])
    protect_streams()  # its log may be on a disk that fills up
    os.nice(_NICE)
    try:
        serve(out, parent)
    except SftscopeError as error:
        say(f"sftscope: {error}")
        sys.exit(1)
