"""The noise bound ζ of each probe, fixed over all steps of a run.

Measured at step 0; where the model does not react to the words there, the median over the steps, for which all of
them are scored (and kept as drafts) before any is decomposed.
"""

from collections.abc import Sequence

import numpy as np

from engine.extraction.finished import BASE_STEP, is_done
from engine.extraction.scoring import SCALE_FLOOR
from engine.extraction.step_scores import scored_step
from engine.extraction.work import Work
from engine.interactions import Floats
from engine.progress import Progress, say
from engine.store import RunFolder, StepRecord


def known_zeta(folder: RunFolder, identity: str) -> tuple[Floats | None, list[str]]:
    """ζ and its source as the first finished step of this run has them."""
    for step in folder.steps():
        if is_done(folder, step, identity):
            record = folder.read_step(step)
            assert record.effects is not None
            return record.effects.zeta, list(record.provenance["zeta_source"])
    return None, []


def measure_zeta(work: Work, wanted: Sequence[int], report: Progress) -> tuple[Floats, list[str]]:
    """ζ of each probe, (P,), and where it was measured.

    Writes a draft for each step that had to be scored, so that a kill loses none.
    """
    factor = work.settings.extraction.zeta

    def scored_reaction(step: int, done: int, total: int) -> Floats:
        record = scored_step(work, step, lambda note: report(done, total, note))
        work.folder.write_draft(record)
        if work.folder.step_file(step).exists():  # another process has made it since, and its draft was dropped
            work.folder.drop_draft(step)
        report(done + 1, total, f"step {step}")
        return reaction(record)

    base = scored_reaction(BASE_STEP, 0, 1)
    silent = base < SCALE_FLOOR
    if not silent.any():
        return factor * base, [f"step {BASE_STEP}"] * len(base)
    steps = sorted({BASE_STEP, *wanted})
    say(f"{int(silent.sum())} probes do not move the base model: ζ from the median over {len(steps)} steps")
    median = np.median([scored_reaction(step, i, len(steps)) for i, step in enumerate(steps)], axis=0)
    scale = np.where(silent, np.maximum(median, SCALE_FLOOR), base)
    return factor * scale, ["median over steps" if s else f"step {BASE_STEP}" for s in silent]


def reaction(record: StepRecord) -> Floats:
    """|v(x_N) - v(x_∅)| of each probe: (P,)."""
    ends = record.offsets
    return np.abs(record.scores[ends[1:] - 1] - record.scores[ends[:-1]])
