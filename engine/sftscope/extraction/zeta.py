"""The noise bound ζ of each probe: fixed over all steps of a run, or of each step (`noise_bound`).

The fixed one is measured at step 0; for probes to whose words the model does not react there, the median over all
checkpoints that the run has, whichever of them are wanted, those with equal weights once: of each, two masked states of
these probes are scored for it.
"""

from collections.abc import Callable

import numpy as np

from sftscope.decomposition.noise_bound import RANGE, SCALE_FLOOR, range_zeta
from sftscope.extraction.finished import BASE_STEP, is_done
from sftscope.extraction.job import Work, enter_step
from sftscope.extraction.step_scores import scored_step
from sftscope.files.opening import is_there
from sftscope.foundation.errors import NotReadError
from sftscope.foundation.progress import Progress, progress, say
from sftscope.lattice.transforms import Floats
from sftscope.llm.weights.weights_content import BASE
from sftscope.scoring.masking import MaskedPrompt
from sftscope.scoring.scorer import Scorer
from sftscope.store import RunFolder, StepRecord

Bounds = Callable[[StepRecord], tuple[Floats, list[str]]]  # scores of a step → ζ of each probe, and its source


def bounds_of(work: Work) -> Bounds:
    """What gives each step its ζ; a fixed one is measured by one process of those that extract the run."""
    extraction = work.settings.extraction
    if extraction.zeta_of == RANGE:
        return lambda scored: range_zeta(scored, extraction.zeta_range)
    with work.folder.in_turn("zeta"):
        zeta, source = known_zeta(work.folder, work.provenance["identity"])
        if zeta is None:
            with progress("scoring") as report:
                zeta, source = measure_zeta(work, report)
    fixed = zeta, source
    return lambda scored: fixed


def known_zeta(folder: RunFolder, identity: str) -> tuple[Floats | None, list[str]]:
    """The fixed ζ and its source as the first finished step of this run has them; None where none is finished.

    NotReadError where only such steps are left that cannot be read now: ζ must not be measured a second time.
    """
    unread: NotReadError | None = None
    for step in folder.steps():
        try:
            if not is_done(folder, step, identity):
                continue
            record = folder.read_step(step)
        except NotReadError as error:
            unread = error
            continue
        assert record.effects is not None
        return record.effects.zeta, list(record.provenance.get("zeta_source", []))
    if unread is not None:
        raise unread
    return None, []


def measure_zeta(work: Work, report: Progress) -> tuple[Floats, list[str]]:
    """The fixed ζ of each probe, (P,), and where it was measured. The model is left as any step's."""
    factor = work.settings.extraction.zeta
    scale = reaction(_scored_base(work, report))
    silent = scale < SCALE_FLOOR
    if silent.any():
        numbers = np.flatnonzero(silent).tolist()
        say(f"the base model does not react to {len(numbers)} probes: their ζ is the median over all steps")
        reactions = [scale[silent]]
        seen: set[str | None] = {BASE}
        for done, step in enumerate(sorted(work.checkpoints)):
            report(done, len(work.checkpoints), f"step {step}, two masked states")
            weights = enter_step(work, step).weights
            if weights is not None and weights in seen:
                continue
            seen.add(weights)
            reactions.append(np.array([_reaction_to(work.scorer, work.prompts[number]) for number in numbers]))
        scale[silent] = np.maximum(np.median(reactions, axis=0), SCALE_FLOOR)
    return factor * scale, ["median over steps" if each else f"step {BASE_STEP}" for each in silent]


def _scored_base(work: Work, report: Progress) -> StepRecord:
    """Step 0, kept as a draft where it had to be scored, so that a kill loses nothing."""
    record = scored_step(work, BASE_STEP, lambda note: report(0, 1, note))
    work.folder.write_draft(record)
    if is_there(work.folder.step_file(BASE_STEP)):  # another process has made it since, and its draft was dropped
        work.folder.drop_draft(BASE_STEP)
    report(1, 1, f"step {BASE_STEP}")
    return record


def _reaction_to(scorer: Scorer, prompt: MaskedPrompt) -> float:
    none, whole = scorer.score_naively(prompt, [0, (1 << prompt.n_variables) - 1])
    return abs(float(whole - none))


def reaction(record: StepRecord) -> Floats:
    """|v(x_N) - v(x_∅)| of each probe: (P,)."""
    ends = record.offsets
    return np.abs(record.scores[ends[1:] - 1] - record.scores[ends[:-1]])
