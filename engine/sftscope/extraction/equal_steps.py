"""Steps with the same weights, such as a first step of learning rate 0: scored once, stored for each.

What makes weights the same is `weights_content`; its hash is in every step file, and marks such steps for whoever
reads them, in whatever order they were made. The results of the later step are those of the first one with its
weights, byte for byte; only what was logged of the step is its own. That is what scoring it again gives, too: so a
worker that comes to it before the first one is finished scores it, and makes the same file.
"""

from dataclasses import dataclass, field, replace

from sftscope.extraction.job import Entered
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.progress import say
from sftscope.store import RunFolder, StepRecord


@dataclass(eq=False)
class FinishedSteps:
    """The finished steps of a run with this identity, by their weights; each file is looked at once."""

    folder: RunFolder
    identity: str
    _weights: dict[int, str | None] = field(default_factory=dict)  # None: not known, or of no use

    def as_step(self, step: int, entered: Entered) -> StepRecord | None:
        """The results of the first step before `step` with the weights that are in place, as those of `step`.

        None where there is no such step, or its weights are not known.
        """
        if entered.weights is None:
            return None
        for first in self.folder.steps():
            if first >= step:
                break
            record = self._with_weights(first, entered.weights)
            if record is not None:
                say(f"step {step}: has the same weights as step {first}, and its results")
                return _as_step(record, step, entered)
        return None

    def _with_weights(self, step: int, weights: str) -> StepRecord | None:
        if step in self._weights and self._weights[step] != weights:
            return None
        self._weights[step] = None
        try:
            record = self.folder.read_step(step)
        except SftscopeError:  # it is looked at, and spoken of, where it is its turn
            return None
        if record.provenance.get("identity") == self.identity:
            self._weights[step] = record.weights
        return record if self._weights[step] == weights else None


def _as_step(record: StepRecord, step: int, entered: Entered) -> StepRecord:
    own = {"adapter_sha256": entered.adapter, "weights_sha256": entered.weights}
    return replace(record, step=step, losses=entered.losses, provenance={**record.provenance, **own})
