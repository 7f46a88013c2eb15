"""`sftscope attach`: a run from the checkpoints of a training that others did, or still do.

Each complete checkpoint is copied into the run folder, and what is extracted is the copy; step 0 is the
base model itself. The losses are those that the trainer logged. Started again it resumes where it stopped.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sftscope.attach.base_model import (
    base_of,
    keep_added_tokens,
    refuse_another_base,
    remark_on_base,
    training_template,
)
from sftscope.attach.copies import copy_checkpoint, refuse_if_disk_is_short
from sftscope.attach.first_checkpoint import Watching, first_whole, is_wanted, last_whole
from sftscope.attach.foreign_checkpoints import (
    EPOCH,
    GIVEN,
    Found,
    is_adapter,
    refuse_unreadable,
    weight_files,
    why_not_whole,
)
from sftscope.attach.layouts import Layout, Source, remarks
from sftscope.attach.prompt_frame import show_frame
from sftscope.attach.trainer_logs import (
    as_lines,
    choose_eval_set,
    eval_sets,
    is_finished,
    log_rows,
    refuse_two_trainings,
)
from sftscope.attach.training_rows import rows_of_file
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.machine_errors import told_in_one_line
from sftscope.foundation.progress import say
from sftscope.foundation.safe_text import safe_text
from sftscope.inputs.settings import DataSettings, ModelSettings, TrainedEnd
from sftscope.llm.hub import refuse_unreachable
from sftscope.runs import pipeline
from sftscope.runs.begin import begin_attached
from sftscope.store import RunFolder, ownership, write_atomically
from sftscope.store.checkpoints import Checkpoint, list_checkpoints, misnamed_checkpoints, why_misnamed
from sftscope.training.data.sources import content_hash, source_of

EPOCH_UNIT = "epoch"  # `step_unit` of run.toml, where steps are epochs


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What may be chosen besides the checkpoints: settings by table, and how they are read.

    settings: as in a config file, `model.path` included; where that is empty, it is the base that the adapters name.
    given: folders of weights by their step. steps: only these; None: all. same_base: the adapters'
    base has another name than the base model but is the same. keep: copies of whole models stay after extraction.
    eval_set: whose loss is the held-out one, where the training evaluated on several sets; empty: the first.
    template: chat, plain, or a file with the Jinja chat template of the training; empty: that of its tokenizer.
    train: the rows of the training, with which the frame of the probes is compared; empty: not known.
    held_out: rows whose loss and correctness are measured at each checkpoint; empty: none. held_out_rows: at most that
    many of them, by a seeded choice; 0: all. trained_end: which tokens after an answer these losses count.
    extracting: False leaves the copies to `sftscope extract`, to several of it or to a cluster.
    """

    settings: Mapping[str, Mapping[str, Any]]
    given: Mapping[int, Path] = field(default_factory=dict)
    steps: frozenset[int] | None = None
    same_base: bool = False
    keep: bool = False
    eval_set: str = ""
    template: str = ""
    train: str = ""
    held_out: str = ""
    held_out_rows: int = 0
    trained_end: TrainedEnd = "token"
    extracting: bool = True


def attach(source: Path | None, out: Path, probes: Path, choices: Choices, watching: Watching | None = None) -> None:
    """Make the run `out` of the checkpoints at `source`; with `watching`, of those that are still to come too.

    source: None where all checkpoints are given. Watching ends with the last step of the training, where its
    checkpoints say which that is, or when none comes.
    """
    origin = Source(source, choices.given)
    for place in origin.places:
        ownership.refuse_same_place(place, RunFolder(out))
    refuse_unreachable(str(choices.settings["model"]["path"]))
    first = first_whole(origin, choices.steps, watching)
    refuse_unreadable(first)
    choices = _with_base(choices, first)
    refuse_another_base(first, choices.settings["model"]["path"], trusted=choices.same_base)
    if remark := remark_on_base(first, choices.settings["model"]["path"]):
        say(f"warning: {remark}")
    begin(first, source, out, probes, choices, last=last_whole(origin, choices.steps))
    settings, folder, identity = pipeline.open_run(out)
    _refuse_another_eval_set(folder, choices.eval_set)
    show_frame(settings.model, folder, partial(rows_of_file, choices.train) if choices.train else None)
    from sftscope.extraction.extract import follow

    ownership.begin_checkpoints(folder.checkpoints)
    intake = _Intake(origin, folder, choices, identity, settings.model)
    intake.take()

    def more() -> bool:
        return watching is not None and not intake.is_over() and intake.wait(watching)

    def made(step: int) -> None:
        if not choices.keep:
            drop_extracted(folder, step)

    if watching is None:
        intake.refuse_incomplete()
    if choices.extracting:
        with told_in_one_line("extraction", pipeline.LESS_MEMORY):
            follow(settings, folder, identity=identity, more=more, made=made, steps=choices.steps)
    else:
        while more():
            pass
    if watching is not None:
        intake.say_left_out()


def drop_extracted(folder: RunFolder, step: int) -> None:
    """Remove the weights of the copy of a whole model whose results are there; a line where it is not ours to do."""
    copy = folder.checkpoints / f"checkpoint-{step}"
    if copy.is_dir() and not is_adapter(copy) and not ownership.drop_weights(copy) and weight_files(copy):
        say(f"{copy}: its weights stay: not known to be a copy that this run made; move it away if it is not needed")


def begin(
    first: Checkpoint | None,
    source: Path | None,
    out: Path,
    probes: Path,
    choices: Choices,
    *,
    tokenizer: Any = None,
    monitored: bool = False,
    last: Checkpoint | None = None,
) -> None:
    """Write run.toml and probes.jsonl, or check those there; the chat template is the one of the training.

    first: a complete checkpoint; None where there is none yet. tokenizer: that of the training, where it is
    known, else the one that the checkpoint holds. monitored: by a callback of ours within the training. last: the last
    complete checkpoint that is there, on which words by influence are chosen too.
    """
    from sftscope.llm.loading import read_template, saved_tokenizer

    tables = {table: dict(values) for table, values in choices.settings.items()}
    if Path(tables["model"]["path"]).exists():
        tables["model"]["path"] = str(Path(tables["model"]["path"]).absolute())
    read = read_probe_settings(tables, probes)
    trained = tokenizer or (first and saved_tokenizer(first.path))
    known = {"checkpoints": str(source.absolute()) if source else "", **(trainer_facts(first) if first else {})}
    if choices.given:
        known["given"] = [f"{step}={path.absolute()}" for step, path in sorted(choices.given.items())]
    if choices.eval_set:
        known["eval_set"] = choices.eval_set
    for name, data in (("held_out", choices.held_out), ("train", choices.train)):
        if data:
            known[name] = str(Path(data).absolute()) if Path(data).exists() else data
    if choices.held_out:
        known["trained_end"] = choices.trained_end
    if choices.train:
        known["train_sha256"] = content_hash(source_of(DataSettings(train=known["train"]), "train"))
    if choices.same_base:
        known["same_base"] = True
    if monitored:
        known["monitored"] = True
    if choices.template in ("chat", "plain"):
        tables["model"]["template"] = choices.template
    given = read_template(choices.template) if choices.template not in ("", "chat", "plain") else ""
    base, asked = tables["model"]["path"], str(tables["model"].get("template", "auto"))
    template = training_template(trained, base, read, asked=asked, given=given)
    with TemporaryDirectory() as scratch:
        kept = Path(scratch) if keep_added_tokens(trained, base, Path(scratch), read, probes) else None
        begin_attached(
            tables, out, known, probes, template=template, tokenizer=kept, last=None if last is None else last.path
        )


def read_probe_settings(tables: dict[str, dict[str, Any]], probes: Path) -> tuple[str, ...]:
    """Messages of the probes; their words are chosen when the run is begun."""
    from sftscope.inputs.probes import read_prompts

    tables["probes"] = {**tables.get("probes", {}), "file": "probes.jsonl"}
    return read_prompts(probes)


def trainer_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a checkpoint says of the training: what its weights are, its epochs and steps."""
    state = checkpoint.trainer_state()
    facts: dict[str, Any] = {"weights": "adapter" if is_adapter(checkpoint.path) else "whole model"}
    if isinstance(checkpoint, Found) and checkpoint.said_by == EPOCH:
        facts["step_unit"] = EPOCH_UNIT
    if state is None:
        return facts
    known = {
        "max_steps": state.max_steps,
        "num_train_epochs": state.epochs,
        "train_batch_size": state.batch_size,
    }
    return facts | {name: value for name, value in known.items() if value is not None}


def _refuse_another_eval_set(folder: RunFolder, wanted: str) -> None:
    attached = folder.read_run().get("attached")
    begun = attached.get("eval_set", "") if isinstance(attached, dict) else ""
    if begun != wanted:
        told = f"--eval-set {safe_text(str(begun), max_length=40)}" if begun else "no --eval-set"
        raise SftscopeError(f"{folder.path}: was begun with {told}; use the same, or another --out")


def _with_base(choices: Choices, first: Checkpoint) -> Choices:
    """With the base that the adapter names, where none was given; said, since a name can lead elsewhere here."""
    model = choices.settings["model"]
    if model["path"]:
        return choices
    base = base_of(first)
    say(f"base model: {safe_text(base, max_length=200)}, as {first.path.name} names it (--model gives another)")
    refuse_unreachable(base)
    return replace(choices, settings={**choices.settings, "model": {**model, "path": base}})


@dataclass(eq=False)
class _Intake:
    """Takes checkpoints into the run as they come."""

    source: Source
    folder: RunFolder
    choices: Choices
    identity: str
    model: ModelSettings
    _said: dict[int, str] = field(default_factory=dict)
    _layout: Layout = field(default_factory=lambda: Layout((), {}))
    _taken: dict[int, Checkpoint] = field(default_factory=dict)
    _done: set[int] = field(default_factory=set)
    _measured: set[int] | None = None  # the steps that were there when held-out rows were measured last
    _eval_set: str = ""

    def take(self) -> None:
        """Copy what is complete, and write the training log anew; what is not complete yet is said once."""
        self._layout = self.source.look(self.folder.checkpoints)
        found = [part for part in self._layout.checkpoints if is_wanted(part, self.choices.steps)]
        whole = [part for part in found if not why_not_whole(part)]
        for part in whole:
            refuse_unreadable(part)
            refuse_another_base(part, self.choices.settings["model"]["path"], trusted=self.choices.same_base)
        known = [copy for copy in list_checkpoints(self.folder.checkpoints) if ownership.read_record(copy.path)]
        refuse_two_trainings([*whole, *known])  # the copies may be of what another source held
        self._refuse_another_unit()
        for place in self.source.places:  # one may have been made, or become a link, since
            ownership.refuse_same_place(place, self.folder)
        for part in whole:
            if is_adapter(part.path) != is_adapter(whole[0].path):
                raise SftscopeError(
                    f"{part.path}: holds {'an adapter' if is_adapter(part.path) else 'a whole model'}, unlike "
                    f"{whole[0].path.name}; checkpoints of one training are of one kind: choose --steps"
                )
        refuse_if_disk_is_short(whole, self.folder.checkpoints)
        self._said = {}
        for part in whole:
            self._forget_dropped(part)
        for part in found:
            within = None if part.said_by == GIVEN else self.source.folder
            if reason := copy_checkpoint(part, self.folder.checkpoints, within=within):
                self._said[part.step] = reason
            else:
                self._taken[part.step] = part
        self._measure()
        copies = [Checkpoint(step, self.folder.checkpoints / f"checkpoint-{step}") for step in sorted(self._taken)]
        rows = as_lines(log_rows(copies, self.source.folder, self._choose_eval_set(copies)))
        if rows and (not self.folder.training_log.is_file() or self.folder.training_log.read_bytes() != rows):
            write_atomically(self.folder.training_log, rows)

    def _measure(self) -> None:
        """Loss and correctness of the held-out rows, where they are asked for, before any copy is dropped."""
        if not self.choices.held_out or self._measured == set(self._taken):
            return
        from sftscope.training.held_out import measure_attached

        data = DataSettings(train="", eval=self.choices.held_out, max_eval_rows=self.choices.held_out_rows)
        with told_in_one_line("held-out rows", "use a device with more"):
            measure_attached(self.model, self.folder, data, trained_end=self.choices.trained_end)
        self._measured = set(self._taken)

    def _refuse_another_unit(self) -> None:
        """SftscopeError where the steps that are there now are epochs and those of the run are not, or vice versa."""
        attached = self.folder.read_run().get("attached")
        was_epochs = isinstance(attached, dict) and attached.get("step_unit") == EPOCH_UNIT
        if self._layout.checkpoints and was_epochs != self._layout.counts_epochs:
            before, now = ("epochs", "steps") if was_epochs else ("steps", "epochs")
            raise SftscopeError(
                f"{self.folder.path}: was begun with {before}, and the checkpoints of {self.source} count {now} now; "
                "use another --out folder, and --checkpoint STEP=PATH for each where names do not say the step"
            )

    def say_left_out(self) -> None:
        """Which weights are no step of the run, and why; what is unusual about those that are."""
        for line in remarks(self._layout, self._taken):
            say(f"warning: {line}")

    def refuse_incomplete(self) -> None:
        """Say which checkpoints were left out, and why; SftscopeError where one was asked for by its step."""
        for path in misnamed_checkpoints(self.source.folder) if self.source.folder else ():
            say(f"warning: {why_misnamed(path)}")
        self.say_left_out()
        paths = {part.step: part.path for part in self._layout.checkpoints}
        for step, reason in sorted(self._said.items()):
            line = f"{paths.get(step, self.source)}: left out: {safe_text(reason)}"
            if self.choices.steps is not None:
                raise SftscopeError(f"{line}; run the same command again when it is complete")
            say(f"warning: {line}; run the same command again when it is complete")
        if self.choices.steps is not None and (missing := self.choices.steps - {0, *self._taken}):
            known = ", ".join(map(str, paths))
            raise SftscopeError(f"{self.source}: no checkpoint of step {min(missing)}; there are {known}")

    def is_over(self) -> bool:
        """Whether the last step of the training has been taken; an earlier one may be where it was resumed."""
        last = max(self._taken, default=0)
        return is_finished(Checkpoint(last, self.folder.checkpoints / f"checkpoint-{last}"))

    def wait(self, watching: Watching) -> bool:
        """Until something new was taken, or the training is over; False where nothing came for too long."""
        before, until = set(self._taken), time.monotonic() + watching.idle
        while set(self._taken) == before and not self.is_over():
            if time.monotonic() > until:
                say(
                    f"no new checkpoint in {self.source} for {watching.idle / 60:.3g} minutes: "
                    "no longer watched; the same command resumes"
                )
                return False
            time.sleep(watching.poll)
            self.take()
        return True

    def _choose_eval_set(self, copies: Sequence[Checkpoint]) -> str:
        """The set whose loss is the held-out one; said once where it was not asked for."""
        chosen = choose_eval_set(copies, self.choices.eval_set)
        if chosen and not self.choices.eval_set and not self._eval_set:
            known = ", ".join(safe_text(name, max_length=40) for name in eval_sets(copies))
            say(
                f"warning: the training evaluated on {known}; the held-out loss is that of "
                f"{safe_text(chosen, max_length=40)}: choose by --eval-set"
            )
        self._eval_set = chosen
        return chosen

    def _forget_dropped(self, part: Checkpoint) -> None:
        """A copy of ours that is not complete, such as one whose weights were dropped, is taken again where its result
        is missing."""
        copy = Checkpoint(part.step, self.folder.checkpoints / f"checkpoint-{part.step}")
        if part.step in self._done or not copy.path.is_dir() or copy.is_ready():
            return
        ownership.refuse_same_checkpoint(part.path, copy.path)
        if self.folder.has_result(part.step, self.identity):
            self._done.add(part.step)
        else:
            ownership.remove_copy(copy.path)
