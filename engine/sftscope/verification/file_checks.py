"""Everything of a run that is no step file: run.toml, probes, precision, log, checkpoints, and what else lies there."""

import numpy as np

from sftscope.files.hashes import file_sha256
from sftscope.files.opening import failed_to_read, is_there, read_plain
from sftscope.foundation.errors import NotReadError, SftscopeError
from sftscope.runs.identity import identity_fits
from sftscope.store import ownership
from sftscope.store.checkpoints import Checkpoint, list_checkpoints, misnamed_checkpoints, why_misnamed
from sftscope.store.held_out_file import read_held_out, torn_lines
from sftscope.store.steps.step_record import IN_PROCESS
from sftscope.verification.damage import DAMAGED, NOTE, Inspection

_STEP_FOLDERS = ("steps", "placebo")
_ROUNDING = 1e-4  # of a loss that was measured again: the rounding of its arithmetic, not of its digits
_ROWS_REMEDY = "move it away; the command that began the run measures again what still has its weights"
_LOG_REMEDY = "the step files have the losses of their steps; move it away, training resumes without it"


def check_run_file(run: Inspection) -> None:
    file = run.folder.run_file
    run.see(file)
    again = f"move it away; {run.begin_again} writes it again and keeps the steps of that config"
    try:
        content = run.folder.read_run()
    except SftscopeError as error:
        run.refused(file, error, again)
        return
    if not identity_fits(content):
        run.found(file, DAMAGED, "its identity is not that of its settings and hashes: it was changed", again)


def check_probes(run: Inspection) -> None:
    file = run.folder.probes_file
    run.see(file)
    try:
        probes = run.folder.read_probes()
        is_of_run = not run.content or run.probes_fit
    except SftscopeError as error:
        run.refused(file, error, f"{run.begin_again} writes it again")
        return
    if not is_of_run:
        what = f"its {len(probes)} probes are not those that run.toml names by their hash"
        run.found(file, DAMAGED, what, f"{run.begin_again} writes it again")


def check_precision(run: Inspection) -> None:
    """What has no hash of its own and can be recomputed: the choice of precision."""
    file = run.folder.precision_file
    try:
        if not is_there(file):
            return
        run.see(file)
        run.folder.read_precision()
    except SftscopeError as error:
        run.refused(file, error)


def check_log(run: Inspection) -> None:
    """The training log: torn lines, and losses that differ from those in the step files."""
    file = run.folder.training_log
    try:
        if not is_there(file):
            return
        run.see(file)
        rows = run.folder.read_log()
        lines = [line for line in read_plain(file).split(b"\n") if line.strip()]
    except (SftscopeError, OSError) as error:
        refused = failed_to_read(file, error) if isinstance(error, OSError) else error
        run.refused(file, refused, _LOG_REMEDY)
        return
    if torn := len(lines) - len(rows):
        run.found(file, NOTE, f"{torn} of {len(lines)} lines cannot be read, left by a killed training or damaged")
    kept = [row for row in rows if row.get("kind") == "checkpoint"]
    for step, record in run.records.items():
        for side, loss in record.losses.items():
            logged = [row[side] for row in kept if row["step"] == step and isinstance(row.get(side), float)]
            if logged and np.isfinite(loss) and loss not in logged:
                run.found(
                    file, DAMAGED, f"step {step}: {side} loss {logged[-1]:g}, its step file has {loss:g}", _LOG_REMEDY
                )


def check_held_out(run: Inspection) -> None:
    """The held-out rows: lines of another shape or of other rows, and losses that do not add up to those of the log."""
    file = run.folder.held_out_file
    try:
        if not is_there(file):
            return
        run.see(file)
        found, problems = read_held_out(run.folder)
        torn, lines = torn_lines(run.folder)
        log = run.folder.read_log()
    except SftscopeError as error:
        run.refused(file, error, _ROWS_REMEDY)
        return
    for problem in problems:
        run.found(file, DAMAGED, problem.removeprefix(f"{file.name}: "), _ROWS_REMEDY)
    if torn:
        run.found(file, NOTE, f"{torn} of {lines} lines cannot be read, left by a killed training or damaged")
    # logs of earlier versions have no `eval_per_row`, and the mean of the batches' means as their eval loss
    logged = {row["step"]: row["eval"] for row in log if "eval" in row and "eval_per_row" in row}
    for step, loss in zip(found.steps.tolist(), found.loss_per_token.tolist(), strict=True) if found else ():
        if step in logged and abs(loss - logged[step]) > _ROUNDING * max(1.0, abs(logged[step])):
            what = f"step {step}: its rows have an eval loss of {loss:g}, the training log has {logged[step]:g}"
            run.found(file, DAMAGED, what, _ROWS_REMEDY)


def check_checkpoints(run: Inspection) -> None:
    """Checkpoints that are kept: written to their end, and the ones that were extracted."""
    try:
        misnamed = misnamed_checkpoints(run.folder.checkpoints)
        found = list_checkpoints(run.folder.checkpoints)
    except NotReadError as error:
        run.refused(run.folder.checkpoints, error)
        return
    for path in misnamed:
        run.found(path, NOTE, why_misnamed(path))
    for checkpoint in found:
        run.see(checkpoint.path)
        record = run.records.get(checkpoint.step)
        try:
            if ownership.were_dropped(checkpoint.path):
                _check_dropped(run, checkpoint)
                continue
            is_ready = checkpoint.is_ready()
        except NotReadError as error:
            run.refused(checkpoint.path, error)
            continue
        if not is_ready:
            kind = NOTE if checkpoint is found[-1] else DAMAGED
            what = "not written to its end" + (", as the newest one after a kill" if kind == NOTE else "")
            run.found(checkpoint.path, kind, what, _checkpoint_remedy(run, checkpoint))
            continue
        if name := _changed_file(run, checkpoint):
            what = f"{name} was changed since it was copied (sha256)"
            run.found(checkpoint.path, DAMAGED, what, _checkpoint_remedy(run, checkpoint))
            continue
        weights = checkpoint.path / "adapter_model.safetensors"
        wanted = record.provenance.get("adapter_sha256") if record is not None else None
        wanted = None if wanted == IN_PROCESS else wanted
        try:
            is_another = wanted and is_there(weights) and file_sha256(weights) != wanted
        except (OSError, NotReadError) as error:
            refused = failed_to_read(weights, error) if isinstance(error, OSError) else error
            run.refused(checkpoint.path, refused)
            continue
        if is_another:
            what = f"its adapter is not the one that step {checkpoint.step} was extracted from (sha256)"
            run.found(checkpoint.path, DAMAGED, what, "the step file is intact and needs it no more")


def _changed_file(run: Inspection, checkpoint: Checkpoint) -> str:
    try:
        return ownership.changed_file(checkpoint.path)
    except (OSError, SftscopeError) as error:
        refused = failed_to_read(checkpoint.path, error) if isinstance(error, OSError) else error
        run.refused(checkpoint.path, refused)
        return ""


def _check_dropped(run: Inspection, checkpoint: Checkpoint) -> None:
    """A copy whose weights were removed on purpose is in order as long as its step has a result."""
    if not run.folder.step_file(checkpoint.step).exists():
        what = f"its weights were removed once step {checkpoint.step} was extracted, and that result is missing"
        run.found(checkpoint.path, NOTE, what, _checkpoint_remedy(run, checkpoint))


def _checkpoint_remedy(run: Inspection, checkpoint: Checkpoint) -> str:
    """What brings a checkpoint back; nothing where the step has its result already."""
    if checkpoint.step in run.records:
        return f"the result of step {checkpoint.step} is intact and needs it no more"
    if run.attached is None:
        return f"{run.begin_again} recomputes it"
    if run.attached.get("monitored"):
        return f"{run.begin_again} writes it again, where it has not passed step {checkpoint.step}"
    return f"{run.begin_again} copies it again, where the training still has it"


def check_others(run: Inspection) -> None:
    """Everything else in the folders of the run: what killed writers left, and what is not ours."""
    folders = [run.folder.path, *(run.folder.path / name for name in _STEP_FOLDERS)]
    passing = {*run.folder.own_files, *run.folder.own_folders}  # looked at elsewhere, or no result
    for folder in folders:
        for file in sorted(folder.iterdir()) if folder.is_dir() else ():
            if run.name(file) in run.seen or file in (*folders, *passing):
                continue
            if file.name.startswith(".sftscope-"):
                run.found(file, NOTE, "left by a writer that was killed, or still at work; the next one sweeps it")
            else:
                run.found(file, NOTE, "not a file of sftscope; left alone")
