"""The run folder: where each thing of a run lies, and reading it without ever writing to it.

``run.toml`` settings, hashes, versions · ``probes.jsonl`` probes with target tokens ·
``training_log.jsonl`` losses by step ·
``held_out.jsonl`` loss and correctness of each held-out row (see `held_out_file`) ·
``baseline_vector.npy`` what masks a word, float32 (d,) ·
``precision.json`` what scoring is computed in and what was measured, where float32 was not asked for ·
``steps/step_00000008.h5`` results (``….scores.h5``: a draft that is scored, not yet decomposed) ·
``placebo/step_00000008.h5`` the same checkpoint extracted a second time, another way ·
``blocks/step_00000008/000000-000016.h5`` the raw scores of probes 0 to 15, until all blocks of the step are there
(``….part.h5``: only the first of them) · ``workers/`` what each worker said last ·
``checkpoints/checkpoint-8/`` in the Trainer's layout (which of them are ours to remove: see `ownership`).
A step file that verifies *is* the state of the job.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from sftscope.files.atomic import append_line, sweep_orphans, write_atomically
from sftscope.files.claims import claim_name, claimed, claimed_in_turn, sweep_claims
from sftscope.files.json_text import json_rows, read_json_object
from sftscope.files.opening import failed_to_read, is_there, read_plain
from sftscope.files.toml_text import MAX_TOML_BYTES, parse_toml
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.progress import say
from sftscope.foundation.safe_text import safe_text
from sftscope.inputs.probes import Probe, read_probes
from sftscope.inputs.row_files import is_packed, read_jsonl
from sftscope.store.log_rows import log_row
from sftscope.store.steps.step_file import MAX_FILE_BYTES, read_step_file, to_bytes
from sftscope.store.steps.step_record import StepFileError, StepRecord

RUN_FORMAT = 1
_OWN_FILES = (
    *("probes.jsonl", "training_log.jsonl", "baseline_vector.npy", "precision.json", "chat_template.jinja"),
    *(
        "held_out.jsonl",
        "held_out_tokens.jsonl",
        "headlines.jsonl",
        "sidecar.log",
        "training_ended",
        "listening.json",
        "request.json",
        "answer.json",
    ),
)
_OWN_FOLDERS = ("steps", "placebo", "blocks", "workers", "cluster", "checkpoints", "tokenizer")
_BLOCK_NAME = re.compile(r"[0-9]{6,12}-[0-9]{6,12}\.h5")
_PASSING = (".sftscope-claim-", ".sftscope-tmp-")
_MOST_TARGETS = 1 << 16  # tokens of one answer
# what its readers take for granted of a run.toml, where it has it: kinds of its values, and of those in its tables
_KINDS: dict[str, type] = {
    "identity": str,
    "name": str,
    "device": str,
    **dict.fromkeys(("model", "source", "hashes", "prompts", "settings", "versions", "collisions", "attached"), dict),
}
_TABLES: dict[str, type] = {"model": str, "source": str, "hashes": str, "settings": dict, "collisions": list}
_NAMES: dict[type, str] = {str: "text", dict: "a table", list: "a list"}
_MOVE_AWAY = "it was changed since sftscope wrote it; restore it, or move it away and begin the run again"
_STEP_NAME = re.compile(r"step_([0-9]{8,12})\.h5")


@dataclass(frozen=True)
class RunFolder:
    """A run on disk. Nothing is read or created before a method is called."""

    path: Path

    @property
    def run_file(self) -> Path:
        """Settings, hashes and versions."""
        return self.path / "run.toml"

    @property
    def probes_file(self) -> Path:
        """Probes with chosen words and target tokens."""
        return self.path / "probes.jsonl"

    @property
    def training_log(self) -> Path:
        """Losses by step, one JSON object a line."""
        return self.path / "training_log.jsonl"

    @property
    def held_out_file(self) -> Path:
        """Loss and correctness of each held-out row by step, one JSON object a line."""
        return self.path / "held_out.jsonl"

    @property
    def held_out_tokens(self) -> Path:
        """The held-out rows of a monitored training as tokens and labels, one JSON object a row."""
        return self.path / "held_out_tokens.jsonl"

    @property
    def baseline_file(self) -> Path:
        """The baseline vector, float32 (d,), as .npy."""
        return self.path / "baseline_vector.npy"

    @property
    def precision_file(self) -> Path:
        """The choice of precision."""
        return self.path / "precision.json"

    @property
    def checkpoints(self) -> Path:
        """The Trainer's output folder."""
        return self.path / "checkpoints"

    @property
    def steps_folder(self) -> Path:
        """One file per extracted checkpoint."""
        return self.path / "steps"

    def step_file(self, step: int) -> Path:
        """The results of `step`."""
        return self.steps_folder / _step_name(step)

    def draft_file(self, step: int, block: range | None = None) -> Path:
        """The raw scores of `step` while its noise bound is not known yet; of a block: those of its first probes."""
        if block is not None:
            return self.block_file(step, block).with_suffix(".part.h5")
        return self.steps_folder / f"step_{step:08d}.scores.h5"

    def blocks_folder(self, step: int) -> Path:
        """The blocks of `step` and their claims: a folder each, so that none grows with the run."""
        return self.path / "blocks" / f"step_{step:08d}"

    def block_file(self, step: int, block: range) -> Path:
        """The raw scores of some probes of `step`."""
        return self.blocks_folder(step) / f"{block.start:06d}-{block.stop:06d}.h5"

    @property
    def workers_folder(self) -> Path:
        """One small file per worker."""
        return self.path / "workers"

    @property
    def placebo_folder(self) -> Path:
        """One file per checkpoint that was extracted a second time."""
        return self.path / "placebo"

    def placebo_file(self, step: int) -> Path:
        """The second results of `step`."""
        return self.placebo_folder / _step_name(step)

    @property
    def tokenizer_folder(self) -> Path:
        """The tokenizer of the training, where it added tokens to that of the base model."""
        return self.path / "tokenizer"

    @property
    def template_file(self) -> Path:
        """The chat template of a training that others did, where it is not the base model's."""
        return self.path / "chat_template.jinja"

    @property
    def own_files(self) -> tuple[Path, ...]:
        """Every file that a run writes besides run.toml."""
        return tuple(self.path / name for name in _OWN_FILES)

    @property
    def own_folders(self) -> tuple[Path, ...]:
        """Every folder that a run writes into."""
        return tuple(self.path / name for name in _OWN_FOLDERS)

    def exists(self) -> bool:
        """Whether this folder has been begun as a run; NotReadError where that cannot be determined now."""
        return is_there(self.run_file)

    def steps(self) -> tuple[int, ...]:
        """The steps that have a result file, in order; the files are not opened."""
        return _steps_in(self.steps_folder)

    def placebo_steps(self) -> tuple[int, ...]:
        """The steps that have a placebo, in order; the files are not opened."""
        return _steps_in(self.placebo_folder)

    def read_step(self, step: int) -> StepRecord:
        """The results of `step`; StepFileError where the file is damaged or holds another step.

        NotReadError where it cannot be read now, which says nothing of the file; so for all that reads here.
        """
        return _read_result(self.step_file(step), step)

    def has_result(self, step: int, identity: str) -> bool:
        """Whether `step` has an intact result of the run with this identity."""
        try:
            return self.read_step(step).provenance.get("identity") == identity
        except StepFileError:
            return False

    def read_placebo(self, step: int) -> StepRecord:
        """The second results of `step`; StepFileError as for `read_step`."""
        return _read_result(self.placebo_file(step), step)

    def write_step(self, record: StepRecord) -> None:
        """Store `record` as the results of its step, then drop its draft."""
        write_atomically(self.step_file(record.step), to_bytes(record))
        self.drop_draft(record.step)

    def drop_draft(self, step: int) -> None:
        """Remove the draft of a step that is done, if there is one."""
        with contextlib.suppress(OSError):  # next to its result it is only waste
            self.draft_file(step).unlink()

    def write_placebo(self, record: StepRecord) -> None:
        """Store `record` as the second results of its step."""
        write_atomically(self.placebo_file(record.step), to_bytes(record))

    def write_draft(self, record: StepRecord, block: range | None = None) -> None:
        """Store the raw scores of a step, or of a block of it, that cannot be decomposed yet."""
        write_atomically(self.draft_file(record.step, block), to_bytes(record))

    def read_draft(self, step: int, block: range | None = None) -> StepRecord:
        """The raw scores stored by `write_draft`; StepFileError as for `read_step`."""
        return _read_scores(self.draft_file(step, block), step)

    def write_block(self, record: StepRecord, block: range) -> None:
        """Store the raw scores of a whole block, then drop what was there of it before.

        A power cut may cost it; what must last is the draft that it is joined into.
        """
        write_atomically(self.block_file(record.step, block), to_bytes(record), lasting=False)
        with contextlib.suppress(OSError):
            self.draft_file(record.step, block).unlink()

    def read_block(self, step: int, block: range) -> StepRecord:
        """The raw scores stored by `write_block`; StepFileError as for `read_step`."""
        return _read_scores(self.block_file(step, block), step)

    def in_blocks_folder(self, step: int) -> frozenset[str]:
        """The names of the blocks of `step` and of the claims on them, by one listing."""
        try:
            return frozenset(os.listdir(self.blocks_folder(step)))  # noqa: PTH208  # names only
        except OSError as error:
            return _no_folder(self.blocks_folder(step), error)

    def blocks(self, step: int) -> frozenset[str]:
        """The names of the whole blocks of `step`, by one listing."""
        return frozenset(name for name in self.in_blocks_folder(step) if _BLOCK_NAME.fullmatch(name))

    def steps_with_blocks(self) -> frozenset[int]:
        """The steps that have blocks, or had when a worker was killed, by one listing."""
        try:
            names = os.listdir(self.path / "blocks")  # noqa: PTH208  # names only
        except OSError as error:
            return _no_folder(self.path / "blocks", error)
        return frozenset(_steps_named({f"{name}.h5" for name in names}))

    def drop_block(self, step: int, block: range) -> None:
        """Remove a block that is damaged or of other settings; SftscopeError where the disk cannot be read."""
        file = self.block_file(step, block)
        try:
            with contextlib.suppress(SftscopeError):  # no regular file
                read_plain(file, MAX_FILE_BYTES)
            file.unlink(missing_ok=True)
        except FileNotFoundError:
            return
        except OSError as error:
            raise SftscopeError(f"{file}: cannot be read: {error.strerror or error}; nothing was removed") from None

    def drop_blocks(self, step: int) -> None:
        """Remove the blocks of a step that is scored, with their claims; what else lies there stays."""
        folder = self.blocks_folder(step)
        if folder.is_symlink():
            return
        for name in self.in_blocks_folder(step):
            if _BLOCK_NAME.fullmatch(name.replace(".part.h5", ".h5")) or name.startswith(_PASSING):
                with contextlib.suppress(OSError):
                    (folder / name).unlink()
        for each in (folder, folder.parent):
            with contextlib.suppress(OSError):  # something is left in it
                each.rmdir()

    def read_run(self) -> dict[str, Any]:
        """run.toml, parsed; what it has of `_KINDS` is of that kind, and a table of `_TABLES` holds only such values.

        SftscopeError where it is missing, no TOML, of a newer format, or of another shape.
        """
        try:
            content = parse_toml(read_plain(self.run_file, MAX_TOML_BYTES).decode())
        except (FileNotFoundError, NotADirectoryError):
            raise SftscopeError(
                f"{self.path}: not a run folder (no run.toml); make one with 'sftscope run CONFIG --out RUN'"
            ) from None
        except OSError as error:
            raise failed_to_read(self.run_file, error) from None
        except ValueError as error:
            reason = safe_text(str(error), max_length=200)
            raise SftscopeError(f"{self.run_file}: not valid TOML: {reason}") from None
        _refuse_newer(content, self.run_file)
        _refuse_other_kinds(content, self.run_file)
        return content

    def write_run(self, content: dict[str, Any]) -> None:
        """Write run.toml. SftscopeError where a name in it is not UTF-8, as TOML has to be."""
        text = tomli_w.dumps(content, multiline_strings=False)
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            line = text[text.rfind("\n", 0, error.start) + 1 :].partition("\n")[0]
            raise SftscopeError(
                f"{self.run_file}: cannot hold a name that is not UTF-8: {safe_text(line, max_length=200)}; rename it"
            ) from None
        write_atomically(self.run_file, data)

    def read_precision(self) -> dict[str, Any] | None:
        """The choice of precision, a table with `taken`; None where none was made."""
        try:
            content = read_json_object(self.precision_file)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise failed_to_read(self.precision_file, error) from None
        except SftscopeError:
            content = {}
        if not isinstance(content.get("taken"), str):
            raise SftscopeError(f"{self.precision_file}: cannot be read; move it away and run the same command again")
        return content

    def read_probes(self) -> tuple[Probe, ...]:
        """The probes with the words that were chosen for this run."""
        self._check_probes_file()
        return read_probes(self.probes_file, n_words=1, seed=0, measured=True)

    def read_targets(self) -> tuple[dict[str, Any], ...]:
        """Target token of each probe: {"id", "text"}, empty where none is known yet."""
        self._check_probes_file()
        return tuple(_target_of(row) for _, row in read_jsonl(self.probes_file))

    def read_log(self) -> tuple[dict[str, Any], ...]:
        """Rows of the training log, as `log_row` makes them; a last line torn by a kill is left out."""
        try:
            found = json_rows(read_plain(self.training_log))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise failed_to_read(self.training_log, error) from None
        rows = (log_row(row) for row in found)
        return tuple(row for row in rows if row is not None)

    def append_log(self, row: Mapping[str, Any]) -> None:
        """Add a row to the training log; a kill in the middle tears only this one."""
        append_line(self.training_log, json.dumps(row))

    def sweep(self) -> int:
        """Remove what killed writers left behind; returns how many files."""
        folders = (self.path, self.steps_folder, self.placebo_folder, self.checkpoints, self.workers_folder)
        return sum(sweep_orphans(folder) + sweep_claims(folder) for folder in folders if folder.is_dir())

    def claimed(self, step: int) -> AbstractContextManager[bool]:
        """Whether `step` is this process's to extract; others leave it alone as long as the block lasts."""
        return claimed(self.steps_folder, f"step-{step}")

    def claimed_block(self, step: int, block: range) -> AbstractContextManager[bool]:
        """As `claimed`, for a block of probes of `step`."""
        return claimed(self.blocks_folder(step), _block_task(block))

    def block_claim(self, block: range) -> str:
        """What the file of the claim on a block is called in the folder of its step."""
        return claim_name(_block_task(block))

    def in_turn(self, name: str) -> AbstractContextManager[None]:
        """What only one process should do at a time, such as a choice that is made once per run."""
        waiting = f"{self.path}: waiting for another process that is working on the same ({name})"
        return claimed_in_turn(self.steps_folder, name, lambda: say(waiting))

    def _check_probes_file(self) -> None:
        """SftscopeError unless the probes are a plain file: a pipe would block, a device never ends."""
        try:
            content = read_plain(self.probes_file)
        except FileNotFoundError:
            raise SftscopeError(f"{self.probes_file}: no such file; the command that began the run writes it") from None
        except OSError as error:
            raise failed_to_read(self.probes_file, error) from None
        if is_packed(content):  # we write none, and it may unpack without end
            raise SftscopeError(f"{self.probes_file}: expected JSON Lines, got something compressed")


def _steps_in(folder: Path) -> tuple[int, ...]:
    """The steps of the result files in a folder, in order; none where there is no such folder."""
    try:
        names = {entry.name for entry in folder.iterdir()}
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise failed_to_read(folder, error) from None
    return tuple(sorted(_steps_named(names)))


def _steps_named(names: Iterable[str]) -> Iterator[int]:
    """The steps of the names that are those of result files: not step_000000004.h5, next to step_00000004.h5."""
    for name in names:
        if (match := _STEP_NAME.fullmatch(name)) and _step_name(int(match[1])) == name:
            yield int(match[1])


def _no_folder(folder: Path, error: OSError) -> frozenset[Any]:
    """Nothing, where there is no such folder; NotReadError where it cannot be listed now."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return frozenset()
    raise failed_to_read(folder, error) from None


def _block_task(block: range) -> str:
    return f"{block.start}-{block.stop}"


def _step_name(step: int) -> str:
    return f"step_{step:08d}.h5"


def _refuse_newer(content: dict[str, Any], file: Path) -> None:
    """SftscopeError for a run of a format that is not known yet; it names the release that made it."""
    version = content.get("format", RUN_FORMAT)
    if type(version) is int and version <= RUN_FORMAT:
        return
    maker = content.get("versions")
    release = maker.get("sftscope") if isinstance(maker, dict) else None
    made = f", made by sftscope {safe_text(str(release), max_length=40)}" if release else ""
    raise SftscopeError(
        f"{file}: run format {safe_text(str(version), max_length=40)}{made} is newer than the {RUN_FORMAT} that this "
        "sftscope reads; update sftscope"
    )


def _refuse_other_kinds(content: dict[str, Any], file: Path) -> None:
    """SftscopeError where run.toml has something of another kind than its readers ask for."""
    for key, kind in _KINDS.items():
        if key in content and not isinstance(content[key], kind):
            raise SftscopeError(f"{file}: {key}: expected {_NAMES[kind]}; {_MOVE_AWAY}")
    for key, kind in _TABLES.items():
        for name, value in content.get(key, {}).items():
            if not isinstance(value, kind):
                shown = safe_text(f"{key}.{name}", max_length=80)
                raise SftscopeError(f"{file}: {shown}: expected {_NAMES[kind]}; {_MOVE_AWAY}")


def _read_result(path: Path, step: int) -> StepRecord:
    record = read_step_file(path)
    if record.step != step or record.effects is None:
        raise StepFileError(f"{path}: does not hold the results of step {step}")
    return record


def _read_scores(path: Path, step: int) -> StepRecord:
    record = read_step_file(path)
    if record.step != step or record.effects is not None:
        raise StepFileError(f"{path}: does not hold the raw scores of step {step}")
    return record


def _target_of(row: Any) -> dict[str, Any]:
    target = row.get("target") if isinstance(row, dict) else None
    if not isinstance(target, dict) or type(target.get("id", 0)) is not int or type(target.get("text", "")) is not str:
        return {}
    ids = target.get("ids")
    several = isinstance(ids, list) and 1 < len(ids) <= _MOST_TARGETS and all(type(each) is int for each in ids)
    return {key: target[key] for key in ("id", "text", *(("ids",) if several else ())) if key in target}
