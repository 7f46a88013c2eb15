"""`SftscopeCallback`: what SFT does to the interactions, while anyone's Trainer or SFTTrainer trains.

    from sftscope.monitor import SftscopeCallback
    trainer.add_callback(SftscopeCallback(trainer, probes="probes.jsonl", out="runs/mine"))

It never changes what is learned: losses and weights are those of the training without it. It never ends a
training by an error of its own. It stops one only if it was asked to, on every process at the same step.
"""

import logging
import subprocess
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import TrainerCallback

from sftscope.attach.attach import Choices, begin, drop_extracted
from sftscope.attach.copies import copy_checkpoint, refuse_if_disk_is_short
from sftscope.attach.prompt_frame import show_frame
from sftscope.attach.trainer_logs import as_lines, choose_eval_set, log_rows, logs_of, refuse_two_logs
from sftscope.attach.training_rows import rows_of_trainer
from sftscope.extraction.job import logged_losses
from sftscope.files.opening import is_there, make_folder
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.progress import hosted, say
from sftscope.foundation.safe_text import safe_text
from sftscope.llm.weights.untrusted_weights import refuse_adapter_as_base
from sftscope.monitor import sidecar
from sftscope.monitor.eval_rows import MOST_ROWS, EvalRows, choose_rows, write_rows
from sftscope.monitor.headline import Headline, append_headline, make_headline, read_headlines, read_past
from sftscope.monitor.live import LiveExtraction, Snapshot, scoring_dtype, untouched
from sftscope.monitor.their_model import agreed, base_of, carries_trained_adapter, sharded_by
from sftscope.runs import pipeline
from sftscope.store import RunFolder, StepRecord, ownership, write_atomically
from sftscope.store.checkpoints import Checkpoint
from sftscope.store.log_rows import log_row
from sftscope.store.sharing.training_requests import Request, answer, listen, stop_listening, take

Where = Literal["sidecar", "in-process"]
Stop = Literal["never", "agree", "sparsest"]
_STARTS = 3  # of the sidecar, before it is given up
_FAILURES = 5  # of our own work, before it is given up
_STOP, _SAVE = 1, 2


class SftscopeCallback(TrainerCallback):
    """Extracts interactions at steps of a training, logs them, and warns when it should have stopped.

    probes, out: the probes, and the run folder that the explorer follows. steps: where to extract; None: wherever the
    trainer saves. where: a process next to the training, on `device`, or the training's own, which waits meanwhile.
    model: the base model, where it is not the one the trainer's model was loaded from. words, variables, choice,
    masked_states, zeta_of: as in a config, [probes] n_words, variables and choice, [extraction] masked_states and
    zeta_of; choice="influence" loads the base once more when the run begins.
    template: chat, plain, or a file with a Jinja chat template, where the training does not use its tokenizer's; its
    rows are compared with a probe. template_date: the date (YYYY-MM-DD) that the template writes; by default today's.
    stop: never; "agree": once the verdict names a step to stop at or by, on which held-out loss and interactions
    agree; "sparsest": once the sparsest step is known, whatever the loss. keep: copies of whole models stay (adapters
    always do). wait: seconds that the end of the training waits for the sidecar. held_out: rows of which loss and
    correctness are measured at every extracted step: None for those of the trainer's eval dataset, where it is
    tokenised; False for none; a data file, or rows as the trainer takes them. held_out_rows: at most that many, by a
    seeded choice; 0: all.
    """

    def __init__(
        self,
        trainer: Any,
        probes: str | Path,
        out: str | Path,
        *,
        steps: Collection[int] | None = None,
        where: Where = "sidecar",
        device: str = "cpu",
        model: str = "",
        words: int = 0,
        variables: str = "words",
        choice: str = "spread",
        masked_states: int = 0,
        zeta_of: str = "base",
        template: str = "",
        template_date: str = "",
        stop: Stop = "never",
        keep: bool = True,
        wait: float = 600.0,
        held_out: Any = None,
        held_out_rows: int = MOST_ROWS,
    ) -> None:
        if where not in ("sidecar", "in-process") or stop not in ("never", "agree", "sparsest"):
            raise SftscopeError(
                f"SftscopeCallback: expected where 'sidecar' or 'in-process' and stop 'never', 'agree' or 'sparsest', "
                f"got {where!r} and {stop!r}"
            )
        self._trainer, self._probes, self._folder = trainer, Path(probes), RunFolder(Path(out))
        self._steps = None if steps is None else frozenset(steps)
        self._where, self._stop, self._keep, self._wait = where, stop, keep, wait
        self._base = model or base_of(trainer.model)
        self._device = device
        self._variables: dict[str, Any] = {"n_words": words, "variables": variables, "choice": choice}
        self._extraction: dict[str, Any] = {"masked_states": masked_states, "zeta_of": zeta_of}
        self._held_out, self._held_out_rows = held_out, held_out_rows
        self._template, self._template_date = template, template_date
        self._failures = 0
        self._begun = False
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self._live: LiveExtraction | None = None
        self._snapshot: Snapshot | None = None
        self._record: tuple[StepRecord, int] | None = None  # extracted, but its losses are not logged yet
        self._offset = 0  # of the headlines that were read
        self._unlogged: list[Headline] = []
        self._warned: set[str] = set()  # of what: the sparsest step, a step to stop by
        self._wants_stop = self._logging = False
        self._check()

    def _check(self) -> None:
        """SftscopeError for what cannot work, before the training begins."""
        ownership.refuse_same_place(Path(self._trainer.args.output_dir), self._folder)
        if self._where == "in-process" and carries_trained_adapter(self._trainer.model):
            raise SftscopeError(
                "SftscopeCallback: the trainer's model was loaded with a trained adapter in it, so that step 0 would "
                "not be the base model; add the adapter by peft (PeftModel), or use where='sidecar'"
            )
        if not self._base:
            raise SftscopeError("SftscopeCallback: the trainer's model does not say where it is from; give model=…")
        if Path(self._base).is_dir():
            refuse_adapter_as_base(Path(self._base))
        sharded = sharded_by(self._trainer)
        if sharded and (self._where == "in-process" or self._steps is not None):
            raise SftscopeError(
                f"SftscopeCallback: {sharded} leaves no complete model on any process; use where='sidecar' without "
                "steps: it reads the checkpoints that the trainer saves (complete, as safetensors)"
            )
        if self._steps is None and str(self._trainer.args.save_strategy) in ("no", "SaveStrategy.NO"):
            raise SftscopeError(
                "SftscopeCallback: this training saves no checkpoints; give steps=…, or a save_strategy"
            )

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin the run, or resume it."""
        if state.is_world_process_zero:
            self._guarded(lambda: self._begin(state))

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """What was extracted after the last step gets the losses that were logged since."""
        if self._leads(state):
            self._guarded(lambda: self._finish_step(state))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Extract where it is wanted; then all processes do what the first was asked for."""
        wanted = 0
        if self._leads(state):
            self._guarded(lambda: self._after_step(state))
            wanted = self._guarded(lambda: self._asked(state)) or 0
        wanted = agreed(wanted, args.device)  # not guarded: every process takes part, or none
        if wanted & _STOP:
            control.should_training_stop = True
        if wanted:
            control.should_save = True
        return control

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Copy the checkpoint before the trainer rotates it away, and see to its extraction."""
        if self._leads(state) and self._steps is None:
            self._guarded(lambda: self._take_save(args, state))

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Headlines join the trainer's logs where it logs itself, so that its reporters show them."""
        if self._leads(state) and not self._logging:
            self._guarded(lambda: self._log_headlines(args, state, control))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Finish what was begun; the sidecar gets `wait` seconds."""
        if self._leads(state):
            self._guarded(lambda: self._end(args, state, control))

    def _leads(self, state: Any) -> bool:
        """Whether this process does our work: the first one, once the run was begun."""
        return bool(state.is_world_process_zero) and self._begun

    def _guarded(self, work: Callable[[], Any]) -> Any:
        """What `work` returns; whatever it raises is said, and the training continues."""
        if self._failures >= _FAILURES:
            return None
        with hosted():
            try:
                return work()
            except Exception as error:  # nobody's training may end by a mistake of its monitor, whichever it is
                torch.cuda.empty_cache()
                self._failures += 1
                kind = "" if isinstance(error, SftscopeError) else f"{type(error).__name__}: "
                end = "; the monitor gives up" if self._failures == _FAILURES else ""
                what = f"{kind}{safe_text(str(error), max_length=500)}"
                say(f"sftscope: {what}; the training continues{end}", logging.WARNING)
                return None

    def _begin(self, state: Any) -> None:
        out = self._folder.path
        ownership.refuse_same_place(Path(self._trainer.args.output_dir), self._folder)
        make_folder(out)
        live = self._where == "in-process"
        precision = {"dtype": scoring_dtype(self._trainer.model)} if live else {}
        settings: dict[str, dict[str, Any]] = {
            "model": {
                "path": self._base,
                "device": "auto" if live else self._device,
                "template_date": self._template_date,
            },
            "probes": self._variables,
            "extraction": self._extraction | precision,
        }
        tokenizer = getattr(self._trainer, "processing_class", None)
        with untouched(self._trainer.model):  # loading the base, for words by influence, may draw random numbers
            begin(
                None,
                Path(self._trainer.args.output_dir),
                out,
                self._probes,
                Choices(settings=settings, template=self._template),
                tokenizer=tokenizer,
                monitored=True,
            )
        ownership.begin_checkpoints(self._folder.checkpoints)
        self._offset = read_past(self._folder)
        listen(self._folder)
        self._begun = True
        sidecar.ended_file(self._folder).unlink(missing_ok=True)
        resolved, folder, identity = pipeline.open_run(out)
        with untouched(self._trainer.model):  # a collator, and a data set, may draw random numbers
            rows = (
                self._guarded(lambda: choose_rows(self._trainer, self._held_out, self._held_out_rows, resolved)) or []
            )
            show_frame(resolved.model, folder, partial(rows_of_trainer, self._trainer))
        write_rows(folder, rows)
        if live:
            self._live = LiveExtraction(self._trainer.model, resolved, folder, identity, EvalRows(rows))
            self._live.begin(state.global_step)
            if folder.steps():
                self._tell()
        else:
            self._wake()

    def _after_step(self, state: Any) -> None:
        """After an optimisation step that was chosen: write its weights down, or extract it here."""
        step = state.global_step
        if self._steps is None or step not in self._steps or is_there(self._folder.step_file(step)):
            return
        ownership.refuse_same_place(Path(self._trainer.args.output_dir), self._folder)
        self._snapshot = Snapshot(self._trainer.model, step, self._folder.checkpoints)
        if self._live is not None:
            self._record = (self._live.extract(step, {}), step)

    def _finish_step(self, state: Any) -> None:
        snapshot, record = self._snapshot, self._record
        self._snapshot = self._record = None
        if snapshot is not None:
            self._refuse_another_training(state)
            snapshot.finish(state)
            self._write_log(state)
            self._wake()
        if record is not None:
            self._store(record[0], Checkpoint(record[1], self._folder.checkpoints / f"checkpoint-{record[1]}").losses())

    def _take_save(self, args: Any, state: Any) -> None:
        step = state.global_step
        source = Checkpoint(step, Path(args.output_dir) / f"checkpoint-{step}")
        ownership.refuse_same_place(source.path.parent, self._folder)
        self._refuse_another_training(state)
        refuse_if_disk_is_short([source], self._folder.checkpoints)
        if reason := copy_checkpoint(source, self._folder.checkpoints, within=source.path.parent):
            raise SftscopeError(f"{source.path}: not copied: {reason}")
        self._write_log(state)
        if self._live is None:
            self._wake()
        elif not is_there(self._folder.step_file(step)):
            self._store(self._live.extract(step, {}), source.losses())

    def _refuse_another_training(self, state: Any) -> None:
        """SftscopeError where the run holds steps of a training with another log than this one."""
        rows = [row for row in map(log_row, state.log_history) if row is not None]
        refuse_two_logs([*logs_of(_copies(self._folder)), (Path(self._trainer.args.output_dir), rows)])

    def _store(self, record: StepRecord, losses: dict[str, float]) -> None:
        """Keep what was extracted here, and its headline."""
        held_out = logged_losses(self._folder, record.step, ("eval",))  # of several eval sets the one in the log
        self._folder.write_step(StepRecord(**{**vars(record), "losses": losses | held_out}))
        self._tell()
        if not self._keep:
            drop_extracted(self._folder, record.step)

    def _tell(self) -> None:
        """Keep the headline of the run as it is now."""
        if (headline := make_headline(self._folder)) is not None:
            append_headline(self._folder, headline)

    def _write_log(self, state: Any) -> None:
        """The losses so far as the run's training log."""
        copies = _copies(self._folder)
        rows = log_rows(copies, Path(self._trainer.args.output_dir), choose_eval_set(copies, ""))
        write_atomically(self._folder.training_log, as_lines(rows))

    def _wake(self) -> None:
        """Start the sidecar, or start it again where it died."""
        if self._live is not None or (self._process is not None and self._process.poll() is None):
            return
        if self._starts == _STARTS:
            self._starts += 1
            log = self._folder.path / "sidecar.log"
            raise SftscopeError(f"the sidecar ended {_STARTS} times ({log} says why); later: sftscope extract")
        if self._starts < _STARTS:
            self._starts += 1
            self._process = sidecar.start(self._folder.path)

    def _asked(self, state: Any) -> int:
        """What this process wants all of them to do: a request of the run's owner, or the stop that was opted for."""
        self._guarded(self._read_headlines)  # forged ones do not keep the owner's request from being honoured
        wanted = _STOP if self._wants_stop else 0
        self._wants_stop = False
        if asked := take(self._folder):
            say(f"sftscope: {asked.request} asked for at step {state.global_step}: {asked.reason or 'no reason given'}")
            wanted |= _STOP if asked.request is Request.STOP else _SAVE
            answer(self._folder, asked.request, state.global_step)
        return wanted

    def _read_headlines(self) -> None:
        new, self._offset = read_headlines(self._folder, self._offset)
        self._unlogged += new
        for headline in new:
            step = headline.sparsest if headline.stop_by is None else headline.stop_by
            if step is None:
                continue
            kind = "sparsest" if headline.stop_by is None else "stop"
            if kind not in self._warned:
                kept = self._folder.checkpoints / f"checkpoint-{step}"
                say(f"sftscope: warning: {headline.words} The checkpoint is kept at {kept}.", logging.WARNING)
                self._warned.add(kind)
            wanted = {"sparsest": headline.sparsest, "agree": headline.stop_by}
            if wanted.get(self._stop) is not None:
                say(f"sftscope: stopping the training, as asked for: {headline.words}", logging.WARNING)
                self._wants_stop = True

    def _log_headlines(self, args: Any, state: Any, control: Any) -> None:
        """Each headline once, to the trainer's history and its reporters; not by `Trainer.log`: TRL adds to that."""
        self._read_headlines()
        self._logging = True
        try:
            for headline in self._unlogged:
                logs = headline.as_logs()
                state.log_history.append({**logs, "step": state.global_step})
                self._trainer.callback_handler.call_event("on_log", args, state, control, logs=logs)
        finally:
            self._logging = False
            self._unlogged = []

    def _end(self, args: Any, state: Any, control: Any) -> None:
        self._finish_step(state)
        stop_listening(self._folder)
        write_atomically(sidecar.ended_file(self._folder), b"")
        if self._process is not None and self._process.poll() is None:
            try:
                self._process.wait(timeout=self._wait)
            except subprocess.TimeoutExpired:
                hint = f"the sidecar continues; if it is ended: sftscope extract {self._folder.path}"
                say(f"sftscope: {hint}", logging.WARNING)
        self._log_headlines(args, state, control)


def _copies(folder: RunFolder) -> list[Checkpoint]:
    from sftscope.store.checkpoints import list_checkpoints

    return list(list_checkpoints(folder.checkpoints))
