"""Writes the versions that the tests run with, to be used as `pip install --constraint FILE`.

    python tests/pin_versions.py

`tested-versions.txt`: what is installed here of `sftscope[engine,dev]` and all that it needs. Run this in an
environment in which all tests pass; the README's commands install these. `lowest-versions.txt`: the lowest minor
releases that the ranges in pyproject.toml allow. Renew both with each change of the ranges.
"""

import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

FOLDER = Path(__file__).parent
_NOTE = "# {}; written by tests/pin_versions.py\n"


def main() -> None:
    """Write both files."""
    for name, note, lines in (
        ("tested-versions.txt", "The whole suite passes with these", tested(["engine", "dev"])),
        ("lowest-versions.txt", "The lowest minor releases that pyproject.toml allows", lowest()),
    ):
        (FOLDER / name).write_text(_NOTE.format(note) + "".join(f"{line}\n" for line in lines))


def tested(extras: list[str]) -> list[str]:
    """name==version of all that is installed of sftscope with these extras, without local builds such as +cpu."""
    found: dict[str, str] = {}
    waiting = [(Requirement("sftscope"), extra) for extra in ["", *extras]]
    seen = set()
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            found[name] = Version(version(name)).public
        except PackageNotFoundError:
            continue  # for another platform, or an optional one
        for line in requires(name) or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(needed, wanted) for wanted in ["", *needed.extras]]
    del found["sftscope"]
    return [f"{name}=={found[name]}" for name in sorted(found)]


def lowest() -> list[str]:
    """name==major.minor.* of the lower bound of every direct dependency but the tools of `dev`."""
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    groups = [project["dependencies"], *(lines for name, lines in extras.items() if name != "dev")]
    lines = set()
    for requirement in (Requirement(line) for group in groups for line in group):
        for bound in requirement.specifier:
            if bound.operator == ">=":
                release = Version(bound.version)
                lines.add(f"{canonicalize_name(requirement.name)}=={release.major}.{release.minor}.*")
    return sorted(lines)


if __name__ == "__main__":
    main()
