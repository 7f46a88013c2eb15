"""Step files, placebos, drafts and the baseline vector: against the schema, the run, each other, and their own sums."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from sftscope.analysis.run.machines import machine_of, machines_sentence
from sftscope.decomposition.noise_bound import RANGE, range_zeta
from sftscope.files.hashes import array_sha256
from sftscope.files.json_text import finite, lookup
from sftscope.files.opening import is_there
from sftscope.foundation.errors import NotReadError, SftscopeError
from sftscope.foundation.safe_text import whole_number
from sftscope.lattice.masked_states import model_at
from sftscope.lattice.transforms import TINY_SHARE
from sftscope.store import NoReaderError, StepFileError, StepRecord
from sftscope.store.prompt_hashes import first_other, scored_in, stored_in
from sftscope.store.steps.step_file import salvage_step_file
from sftscope.store.steps.step_record import MAX_STEP
from sftscope.verification.damage import DAMAGED, NOTE, Inspection, Seen

_ROUNDING = 1e-9  # of max |v - b|: what `decompose` promises beyond ζ


def check_steps(run: Inspection) -> None:
    first: Seen | None = None
    for step in run.folder.steps():
        file = run.folder.step_file(step)
        run.see(file)
        try:
            record = run.folder.read_step(step)
        except NoReaderError:
            raise
        except (StepFileError, NotReadError) as error:
            run.refused(file, error, lambda file=file, step=step: _step_remedy(run, file, step))  # type: ignore[misc]
            continue
        mismatches = list(_mismatches(run, record, first))
        for what in mismatches:
            run.found(file, DAMAGED, what, f"move it away, then {_extract_again(run, step)}")
        if not mismatches:
            run.records[step] = Seen.of(record)
            first = first or run.records[step]
    if sentence := machines_sentence([machine_of(record.provenance) for record in run.records.values()]):
        run.found(run.folder.steps_folder, NOTE, sentence)
    _baseline(run)


def check_placebos(run: Inspection) -> None:
    for step in run.folder.placebo_steps():
        file = run.folder.placebo_file(step)
        run.see(file)
        again = f"{run.command('extract', str(run.folder.path), '--placebo', str(step))} recomputes it"
        try:
            record = run.folder.read_placebo(step)
        except (StepFileError, NotReadError) as error:
            run.refused(file, error, again)
            continue
        for what in _mismatches(run, record, run.records.get(step)):
            run.found(file, DAMAGED, what, f"move it away, then {again}")
        if step not in run.records and run.name(run.folder.step_file(step)) not in run.unread:
            run.found(file, NOTE, f"a placebo of step {step}, which is not among the whole steps")


def check_drafts(run: Inspection) -> None:
    for file in sorted(run.folder.steps_folder.glob("step_*.scores.h5")):
        step = whole_number(file.name.removeprefix("step_").removesuffix(".scores.h5"))
        if step is None or step > MAX_STEP or run.folder.draft_file(step) != file:
            continue  # a name that we do not write
        run.see(file)
        try:
            run.folder.read_draft(step)
        except (StepFileError, NotReadError) as error:
            again = run.command("extract", str(run.folder.path))
            run.refused(file, error, f"{again} scores the step again")
            continue
        what = "next to its result: only waste" if step in run.records else "scored, not decomposed yet"
        run.found(file, NOTE, what, "" if step in run.records else f"{_extract_again(run, step)} resumes from it")


def _mismatches(run: Inspection, record: StepRecord, other: Seen | None) -> Iterator[str]:
    """What a step file says that other files, or its own numbers, do not."""
    identity = run.content.get("identity")
    if identity and record.provenance.get("identity") not in (identity, None):
        yield "belongs to another run (other settings, model or probes)"
        return
    if run.probes is not None:
        if record.n_variables.tolist() != [len(probe.words) for probe in run.probes]:
            yield "its probes are not the probes of this run"
            return
        for index, target in enumerate(run.folder.read_targets()):
            if "id" in target and target["id"] != record.target[index]:
                yield f"scores another target token of probe {index} than probes.jsonl names"
    number = first_other(stored_in(run.content), scored_in(record.provenance))
    if number is not None:
        probes = run.probes or ()
        name = repr(probes[number].id) if number < len(probes) else f"number {number + 1}"
        yield f"was scored on another prompt of probe {name} than run.toml names by its hash (other tokens)"
    assert record.effects is not None
    worst = max(_excess(record, index) for index in range(record.n_variables.size))
    if worst > 0:
        yield f"its effects miss its scores by {worst:.2g} more than ζ allows"
    tolerance = finite(lookup(run.content, "settings", "extraction", "tolerance"))
    tolerance = 1.0 if math.isnan(tolerance) else tolerance
    if not (record.effects.gap <= tolerance).all():
        yield f"its gap {record.effects.gap.max():.1e} is above the tolerance {tolerance:g}"
    yield from _zeta_misfits(run, record, other)


def _zeta_misfits(run: Inspection, record: StepRecord, other: Seen | None) -> Iterator[str]:
    """A fixed ζ is that of the other steps, a moving one follows from the scores; a placebo has that of its step."""
    assert record.effects is not None
    zeta, placebo = record.effects.zeta, record.provenance.get("placebo") is True
    if lookup(run.content, "settings", "extraction", "zeta_of") == RANGE and not placebo:
        share = finite(lookup(run.content, "settings", "extraction", "zeta_range"))
        if not math.isnan(share) and not np.allclose(zeta, range_zeta(record, share)[0], rtol=_ROUNDING, atol=0.0):
            yield f"its ζ is not {share:g} of the range of its scores"
    elif other is not None and not np.array_equal(zeta, other.zeta):
        why = "" if placebo else "; one ζ holds for all steps of a probe"
        yield f"its ζ is not that of step {other.step}{why}"


def _excess(record: StepRecord, index: int) -> float:
    """By how much |h - v| of one probe exceeds ζ, beyond rounding and TINY_SHARE; Eq. (3)."""
    part, states, pairs = record.probe_slice(index), record.states_of(index), record.pairs_of(index)
    assert record.effects is not None
    scores = record.scores[part]
    model = scores[0] + model_at(states.n, states.subset, pairs.relation, pairs.subset, pairs.effect)
    scores, model = scores[~states.held_out], model[~states.held_out]  # the others are predicted, not matched
    allowed = record.effects.zeta[index] * (1 + TINY_SHARE) + _ROUNDING * np.abs(scores - scores[0]).max()
    return float(np.abs(model - scores).max() - allowed)


def _step_remedy(run: Inspection, file: Path, step: int) -> str:
    """What can be recomputed of a damaged step file, and by which command."""
    unknown = "whether its raw scores are intact could not be determined now; verify again before anything else"
    if run.name(run.folder.run_file) in run.unread:
        return unknown
    try:
        draft = salvage_step_file(file)
        belongs = draft.step == step and draft.provenance.get("identity") == run.content.get("identity")
        is_usable = belongs and run.probes_fit
    except NotReadError:
        return unknown
    except StepFileError:
        is_usable = False
    if not is_usable:
        return _extract_again(run, step)
    run.repairable.append(step)
    return (
        f"its raw scores are intact: {run.command('verify', str(run.folder.path), '--repair')} "
        "makes the effects again from them, without the model"
    )


def _extract_again(run: Inspection, step: int) -> str:
    """The command that scores a step again, or that there is none."""
    try:
        ready = step in run.ready
    except NotReadError:
        return "whether its checkpoint is still there could not be determined now; verify again"
    if ready:
        return f"{run.command('extract', str(run.folder.path), '--steps', str(step))} scores this step again"
    if run.attached is None:
        return f"its checkpoint is gone: only training again makes it, {run.command('run', 'CONFIG', '--out', 'NEW')}"
    if run.attached.get("monitored"):
        return "its checkpoint is not in the run: only training again makes it, monitored into another run folder"
    return f"{run.begin_again} copies its checkpoint and scores this step again, where the training still has it"


def _baseline(run: Inspection) -> None:
    """The baseline vector against the hash in the step files."""
    file = run.folder.baseline_file
    named = [record.provenance.get("baseline_vector") for record in run.records.values()]
    wanted = {each["sha256"] for each in named if isinstance(each, Mapping) and "sha256" in each}
    try:
        if not is_there(file):
            if wanted:
                run.found(file, NOTE, "is gone; extraction recomputes it from the model of step 0")
            return
        run.see(file)
        digest = array_sha256(file)
    except SftscopeError as error:
        run.refused(file, error, "move it away; extraction computes it again")
        return
    if wanted and digest not in wanted:
        run.found(
            file, DAMAGED, "is not what the steps were made with (sha256)", "move it away; extraction computes it again"
        )
