"""Repairs what `verify` calls repairable: effects recomputed from intact raw scores, without a model."""

from pathlib import Path

from sftscope.decomposition.noise_bound import RANGE, range_zeta
from sftscope.decomposition.step_effects import with_effects
from sftscope.foundation.errors import NotReadError
from sftscope.foundation.progress import progress, say
from sftscope.foundation.safe_text import own_command
from sftscope.inputs.settings import ExtractionSettings
from sftscope.lattice.transforms import Floats
from sftscope.runs.identity import settings_in
from sftscope.store import RunFolder, StepFileError, StepRecord
from sftscope.store.steps.step_file import salvage_step_file
from sftscope.verification.damage import Verification
from sftscope.verification.verify import verify


def repair(path: Path) -> Verification:
    """Recompute the step files whose raw scores are intact, then verify once more.

    NotReadError where a step that may be intact cannot be read now: nothing is replaced then.

    A ζ that moves with the steps follows from the scores; a fixed one is that of an intact step. Where there is none
    the raw scores are kept as a draft, from which `extract` resumes.
    """
    found, folder = verify(path), RunFolder(path)
    if found.repairable:
        first = _whole_step(folder)
        extraction = settings_in(folder.read_run()).extraction
        words = [probe.variables for probe in folder.read_probes()]
        with progress("repair") as report:
            for done, step in enumerate(found.repairable):
                scores = salvage_step_file(folder.step_file(step))
                bounds = _bounds(extraction, scores, first)
                if bounds is None:
                    folder.write_draft(scores)
                    folder.step_file(step).unlink()
                    say(f"step {step}: its raw scores are kept; {own_command('extract', path)} resumes from them")
                else:
                    made = with_effects(
                        scores,
                        *bounds,
                        words=words,
                        tolerance=extraction.tolerance,
                        replicates=extraction.replicates,
                    )
                    folder.write_step(made)
                report(done + 1, len(found.repairable), f"step {step}")
    return verify(path)


def _bounds(
    extraction: ExtractionSettings, scores: StepRecord, first: StepRecord | None
) -> tuple[Floats, list[str]] | None:
    """ζ of each probe at the step of these scores, and its source; None where no intact step has the fixed one."""
    if extraction.zeta_of == RANGE:
        return range_zeta(scores, extraction.zeta_range)
    if first is None or first.effects is None:
        return None
    return first.effects.zeta, list(first.provenance.get("zeta_source", []))


def _whole_step(folder: RunFolder) -> StepRecord | None:
    unread: NotReadError | None = None
    for step in folder.steps():
        try:
            return folder.read_step(step)
        except StepFileError:
            continue  # the one to be repaired, or another
        except NotReadError as error:
            unread = error
    if unread is not None:
        raise unread
    return None
