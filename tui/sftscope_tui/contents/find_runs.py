"""Which runs there are: in a folder, next to a run, shipped with sftscope. Knows paths only."""

from collections.abc import Iterable
from pathlib import Path

MOST_RUNS = 500


def check_runs(paths: Iterable[Path]) -> None:
    """SftscopeError where one of `paths` is no run, as `sftscope show` says it; a run without any step yet is one."""
    from sftscope.store import RunFolder  # here: the command line's help needs no numpy

    for path in paths:
        RunFolder(path).read_run()


def find_runs(folder: Path) -> list[Path]:
    """Run folders in `folder` and two levels below it, by name."""
    patterns = ("run.toml", "*/run.toml", "*/*/run.toml")
    return sorted({file.parent for pattern in patterns for file in folder.glob(pattern)})


def sample_runs() -> list[Path]:
    """The runs that ship with sftscope: next to the packages in a checkout, inside this one when installed."""
    beside, inside = Path(__file__).parents[3] / "sample_runs", Path(__file__).parents[1] / "sample_runs"
    return find_runs(inside if inside.is_dir() else beside)


def runs_beside(path: Path, given: list[Path]) -> list[Path]:
    """The runs to choose from: those given, those in the folder of `path`, the sample runs; each once."""
    try:
        beside = find_runs(path.absolute().parent)[:MOST_RUNS]
    except OSError:  # the folder may not be listed: then there are only those that were named
        beside = []
    found: dict[Path, Path] = {}
    for run in [path, *given, *beside, *sample_runs()]:
        found.setdefault(run.absolute().resolve(), run.absolute())
    return list(found.values())
