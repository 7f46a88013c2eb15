"""What is found out about a run's files, and what is said of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sftscope.foundation.errors import NotReadError, SftscopeError
from sftscope.foundation.safe_text import first_of_each_kind, safe_text, shell_command
from sftscope.inputs.probes import Probe
from sftscope.runs.identity import probes_are_whole
from sftscope.store import RunFolder, StepRecord
from sftscope.store.checkpoints import ready_checkpoints

SCHEMA = "sftscope-verify"
VERSION = 1
DAMAGED, NOTE = "damaged", "note"


@dataclass(frozen=True)
class Finding:
    """What is the matter with a file, named from the run folder on, and what to do. Safe to show."""

    file: str
    kind: str  # DAMAGED or NOTE
    what: str
    remedy: str = ""


@dataclass(frozen=True)
class Verification:
    """The state of a run: how many files are intact, what was found, and which steps `repair` can fix.

    not_read: the files that could not be read now, so that nothing is known of them.
    """

    whole: int
    findings: tuple[Finding, ...]
    repairable: tuple[int, ...]
    not_read: tuple[str, ...] = ()

    @property
    def damaged(self) -> tuple[str, ...]:
        """The files that are damaged, each once."""
        return tuple(dict.fromkeys(each.file for each in self.findings if each.kind == DAMAGED))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"schema": SCHEMA, "version": VERSION, **asdict(self)}

    def as_text(self) -> str:
        """One line for a finding, one for its remedy, and the count; the first findings of each kind."""
        entries = [
            f"{each.kind:8} {each.file}: {each.what}" + (f"\n{'':8} → {each.remedy}" if each.remedy else "")
            for each in self.findings
        ]
        notes = sum(each.kind == NOTE for each in self.findings)
        unread = f", {len(self.not_read)} not read" if self.not_read else ""
        counts = f"{self.whole} files intact, {len(self.damaged)} damaged{unread}, {notes} notes"
        return "\n".join([*first_of_each_kind(entries), counts])


@dataclass(frozen=True, eq=False)
class Seen:
    """What is kept of a whole step file: a run may have more masked states than memory holds."""

    step: int
    losses: Mapping[str, float]
    provenance: Mapping[str, Any]
    zeta: Any  # (P,)

    @classmethod
    def of(cls, record: StepRecord) -> "Seen":
        assert record.effects is not None
        return cls(record.step, record.losses, record.provenance, record.effects.zeta)


@dataclass(eq=False)
class Inspection:
    """A run folder and what has been found in it so far."""

    folder: RunFolder
    findings: list[Finding] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    repairable: list[int] = field(default_factory=list)
    unread: dict[str, None] = field(default_factory=dict)
    records: dict[int, "Seen"] = field(default_factory=dict)

    def see(self, file: Path) -> None:
        self.seen.add(self.name(file))

    def name(self, file: Path) -> str:
        return safe_text(str(file.relative_to(self.folder.path)))

    def found(self, file: Path, kind: str, what: str, remedy: str = "") -> None:
        said = what.removeprefix(f"{file}: ").replace(f"{self.folder.path}/", "")
        self.findings.append(Finding(self.name(file), kind, safe_text(said), safe_text(remedy)))

    def refused(self, file: Path, error: Exception, remedy: str | Callable[[], str] = "") -> None:
        """Why a file was not read: damage, with its remedy, or the machine, which is a note."""
        if not isinstance(error, NotReadError):
            self.found(file, DAMAGED, str(error), remedy if isinstance(remedy, str) else remedy())
            return
        self.unread[self.name(file)] = None
        said = str(error).removeprefix(f"{file}: ").removeprefix("not read: ")
        self.found(file, NOTE, f"not read: {said}")

    def command(self, *words: str) -> str:
        return shell_command(["sftscope", *words])

    @cached_property
    def content(self) -> Mapping[str, Any]:
        """run.toml; empty where it is damaged."""
        try:
            return self.folder.read_run()
        except SftscopeError:
            return {}

    @cached_property
    def probes(self) -> Sequence[Probe] | None:
        """The probes; None where they are damaged."""
        try:
            return self.folder.read_probes()
        except SftscopeError:
            return None

    @cached_property
    def probes_fit(self) -> bool:
        """Whether the probes are those that run.toml names; NotReadError where that cannot be determined now."""
        hashes = self.content.get("hashes")
        return self.probes is not None and isinstance(hashes, Mapping) and probes_are_whole(self.folder, hashes)

    @cached_property
    def ready(self) -> frozenset[int]:
        """The steps whose checkpoints are there, written to their end; step 0 needs none."""
        return frozenset({0, *ready_checkpoints(self.folder.checkpoints)})

    @property
    def attached(self) -> Mapping[str, Any] | None:
        """What run.toml says of a training that others did; None for a training of our own."""
        attached = self.content.get("attached")
        return attached if isinstance(attached, Mapping) else None

    @cached_property
    def begin_again(self) -> str:
        """What began the run, and continues it: a command, or the training that is monitored."""
        out = str(self.folder.path)
        if not self.content:
            return "the command or training that began the run"
        if self.attached is None:
            return self.command("run", "CONFIG", "--out", out)
        if self.attached.get("monitored"):
            return f"the training with its SftscopeCallback(…, out={out!r}), resumed,"
        return self.command(*_attach_words(self.content, self.attached, out))


_ATTACH_OPTIONS = (  # of `sftscope attach`: table and key of run.toml, option, default
    ("probes", "n_words", "--words", 0),
    ("probes", "variables", "--variables", "words"),
    ("extraction", "masked_states", "--masked-states", 0),
    ("extraction", "dtype", "--dtype", "float32"),
    ("extraction", "target", "--target", "auto"),
    ("extraction", "zeta_of", "--zeta-of", "base"),
    ("model", "device", "--device", "auto"),
)


def _attach_words(content: Mapping[str, Any], attached: Mapping[str, Any], out: str) -> list[str]:
    """The `attach` command of a run, the file of its probes left open."""
    settings = content.get("settings")
    tables = {
        name: table
        for name, table in (settings if isinstance(settings, Mapping) else {}).items()
        if isinstance(table, Mapping)
    }
    folder, given = str(attached.get("checkpoints", "CHECKPOINTS")), attached.get("given")
    words = ["attach", *([folder] if folder else [])]
    for each in given if isinstance(given, list) else ():
        words += ["--checkpoint", str(each)]
    words += ["--model", str(tables.get("model", {}).get("path", "MODEL")), "--probes", "PROBES", "--out", out]
    for table, key, option, default in _ATTACH_OPTIONS:
        value = tables.get(table, {}).get(key, default)
        if value != default:
            words += [option, str(value)]
    if attached.get("eval_set"):
        words += ["--eval-set", str(attached["eval_set"])]
    if attached.get("held_out"):
        words += ["--eval", str(attached["held_out"])]
    return [*words, "--same-base"] if attached.get("same_base") else words
