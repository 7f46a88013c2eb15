"""What several commands share: their arguments, lists in options, and getting ready for PyTorch."""

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text, whole_number
from sftscope.inputs.presets import find_config, presets_in_words


def folder(named: str | Path) -> Path:
    """A folder that is named; an empty name, as of a variable that is not set, would be the working folder.

    A default arrives as the Path that it is.
    """
    if not str(named).strip():
        raise typer.BadParameter("expected a folder, got an empty name")
    return Path(named)


Config = Annotated[
    Path,
    typer.Argument(help=f"Settings of the run: a TOML file, or a preset: {presets_in_words()}.", callback=find_config),
]
ConfigOrRun = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG|RUN",
        help="A TOML file, a preset name, or a run folder (what is left of it).",
        callback=find_config,
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="TABLE.FIELD=VALUE",
        help="One setting instead of the config's, such as training.max_steps=100; repeatable. "
        "'sftscope config' lists all.",
    ),
]
Out = Annotated[Path, typer.Option("--out", parser=folder, metavar="RUN", help="Run folder to create or resume.")]
Run = Annotated[Path, typer.Argument(parser=folder, help="A run folder.")]
Verify = Annotated[
    int | None,
    typer.Option(
        "--verify",
        min=0,
        metavar="K",
        help="Score K masked states per probe again with plain forward passes; refuse a step that differs. "
        "Default: [extraction] check_states.",
    ),
]
Tau = Annotated[str, typer.Option("--tau", help="Rule for the threshold, such as max-step:0.05.")]
Support = Annotated[
    bool,
    typer.Option(
        "--support", help="Say in how many of 8 slightly noisy decompositions each interaction has its class; slow."
    ),
]
Train = Annotated[
    str, typer.Option("--train", metavar="DATA", help="The training rows, if the run does not know them.")
]
Trajectory = Annotated[
    bool, typer.Option("--trajectory", help="Preserved requires being encoded at every step since the base step.")
]
Hysteresis = Annotated[
    float,
    typer.Option(
        "--hysteresis",
        help="Share of the threshold, above 0, below which an interaction counts as clearly absent; 1: no hysteresis.",
    ),
]


# Read once, when tqdm, tokenizers and the hub's client are first imported: stderr is for our own
# progress, tokenizers' threads do not survive a fork, and nothing is reported to anyone.
_QUIET = {
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
Shard = Annotated[
    str, typer.Option("--shard", metavar="I/N", help="This is process I of N that share the steps, such as 1/4.")
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, metavar="N", help="Start N workers that share every step by blocks of probes."),
]
Cluster = Annotated[str, typer.Option("--cluster", help="Submit the workers through submitit: slurm or local.")]
Block = Annotated[
    int | None, typer.Option("--block", min=1, metavar="K", help="Probes per block; by default 16,384 masked states.")
]


def need_engine() -> None:
    """Get ready for PyTorch; SftscopeError with what to install if the extra `engine` is missing."""
    for package in ("torch", "transformers", "peft"):
        if find_spec(package) is None:
            raise SftscopeError(f"this command needs {package}; install it with: pip install 'sftscope[engine]'")
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        os.getcwd()  # noqa: PTH109  # PyTorch ends the process where it fails
    except OSError as error:
        raise SftscopeError(f"the working folder cannot be used: {error.strerror}; change to another one") from None


def numbers_in(text: str) -> tuple[int, ...] | None:
    """The steps in `--steps`; None where none are named."""
    if not text:
        return None
    numbers = [whole_number(part.strip()) for part in text.split(",")]
    found = tuple(number for number in numbers if number is not None)
    if len(found) < len(numbers):
        raise SftscopeError(
            f"--steps {safe_text(repr(text), max_length=60)}: expected step numbers joined by commas, such as 0,8,16"
        )
    return found


def checkpoints_in(texts: Sequence[str]) -> dict[int, Path]:
    """Folders by step, of `--checkpoint STEP=PATH`."""
    from sftscope.store.steps.step_record import MAX_STEP

    found: dict[int, Path] = {}
    for text in texts:
        number, _, path = text.partition("=")
        step = whole_number(number.strip())
        if not step or step > MAX_STEP or not path.strip():
            raise SftscopeError(
                f"--checkpoint {safe_text(repr(text), max_length=200)}: expected STEP=PATH with a step above 0 (step 0 "
                "is the base model), such as 300=out/final"
            )
        if step in found:
            raise SftscopeError(f"--checkpoint: step {step} is given twice")
        found[step] = Path(path).expanduser()
    return found


def shard_in(text: str) -> tuple[int, int]:
    """I and N of `--shard I/N`."""
    index, _, count = text.partition("/")
    part, total = whole_number(index), whole_number(count)
    if part is None or total is None or not 1 <= part <= total:
        raise SftscopeError(f"--shard {safe_text(repr(text), max_length=60)}: expected I/N with 1 ≤ I ≤ N, such as 1/4")
    return part, total


def leave_if_one_of_several() -> None:
    """End this process now, its work being done, if torchrun or accelerate launch started several.

    The threads of torch's process group can abort an interpreter that shuts down while they run, and its
    `destroy_process_group` can wait for them for ever (a destructor that holds the interpreter's lock).
    """
    if (whole_number(os.environ.get("WORLD_SIZE", "")) or 1) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
