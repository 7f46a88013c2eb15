"""What SCHEMAS.md documents of each JSON form, and the check that a form has these fields and no others."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from sftscope.analysis.sets.views import to_plain

ROOT = Path(__file__).parents[2]
Field = tuple[str, ...]  # the keys down to it; a list's entries are under "[]"


@lru_cache
def tables() -> dict[str, dict[str, str]]:
    """By heading: each documented field and the part it links to, if any."""
    found: dict[str, dict[str, str]] = {}
    heading = ""
    for line in (ROOT / "engine" / "SCHEMAS.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("| `"):
            names, kind = re.split(r"(?<!\\)\|", line)[1:3]
            link = re.search(r"\(#([\w-]+)\)", kind)
            for name in re.findall(r"`([^`]+)`", names):
                assert name not in found.setdefault(heading, {}), f"{heading}: {name} is listed twice"
                found[heading][name] = link[1].replace("-", " ") if link else ""
    return found


def documented(heading: str) -> Iterator[Field]:
    """The fields of a form, with those of the parts that it links to."""
    for name, part in tables()[heading].items():
        keys = tuple(re.findall(r"\[\]|[^.\[\]]+", name))
        yield keys
        if part:
            yield from (keys + rest for rest in documented(part))


def emitted(plain: Any, keys: Field = ()) -> Iterator[Field]:
    """Every field that a form has."""
    if isinstance(plain, Mapping):
        for key, value in plain.items():
            yield (*keys, str(key))
            yield from emitted(value, (*keys, str(key)))
    elif isinstance(plain, Sequence) and not isinstance(plain, str):
        for value in plain:
            yield (*keys, "[]")
            yield from emitted(value, (*keys, "[]"))


def fits(field: Field, pattern: Field) -> bool:
    """Whether the pattern documents the field, or a field inside it."""
    for key, wanted in zip(field, pattern, strict=False):
        if wanted == "**":
            return True
        if key != wanted and (wanted != "*" or key == "[]"):
            return False
    return len(field) <= len(pattern)


def is_of(field: Field, pattern: Field) -> bool:
    """Whether the field is the documented one; a list may be empty."""
    ends = len(pattern) - (pattern[-1] in ("[]", "**"))
    return len(field) == ends and fits(field, pattern)


def check(heading: str, *forms: Any, unseen: tuple[str, ...] = ()) -> None:
    """Each form says what it is; all of its fields are documented, and each documented field is in some form."""
    patterns = list(documented(heading))
    forms = tuple(form.as_dict() if hasattr(form, "as_dict") else form for form in forms)
    seen = {field for form in forms for field in emitted(to_plain(form))}
    for form in forms:
        assert (form["schema"], type(form["version"])) == (f"sftscope-{heading}", int)
        stated = (ROOT / "engine" / "SCHEMAS.md").read_text(encoding="utf-8").split(f"\n## {heading}\n")[1]
        assert f"schema `sftscope-{heading}`, version {form['version']}." in stated.partition("|")[0]
    own = {("schema",), ("version",)}
    missing = sorted(".".join(field) for field in seen - own if not any(fits(field, each) for each in patterns))
    assert not missing, f"SCHEMAS.md, {heading}: not documented"
    stale = [".".join(each).replace(".[]", "[]") for each in patterns if not any(is_of(field, each) for field in seen)]
    stale = [name for name in stale if not name.startswith(unseen or ("\0",))]
    assert not stale, f"SCHEMAS.md, {heading}: no form has"
