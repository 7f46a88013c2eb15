"""Which words of a prompt move v most: the choice of variables by influence.

The influence of a word is |v(x_N) - v(x_N without it)|, leave-one-out, the largest over the weights that are there when
a run begins: the base, and of a training that is over its last checkpoint. All words of the prompt are candidates, stop
words and those of the instruction too. Scores are those of plain batched forward passes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftscope.foundation.progress import say
from sftscope.foundation.safe_text import safe_text
from sftscope.inputs.probes import PROMPT, Probe
from sftscope.inputs.segmentation import Span
from sftscope.inputs.settings import RunSettings
from sftscope.inputs.word_influence import Influence, Moved
from sftscope.llm.arithmetic import FLOAT32, weights_dtype
from sftscope.llm.loading import load_llm
from sftscope.llm.prompting.prompts import Template
from sftscope.llm.weights.adapters import AdapterSlot
from sftscope.llm.weights.vocabulary import fit_vocabulary
from sftscope.scoring.masking import MaskedPrompt, baseline_vector, mask_probe
from sftscope.scoring.scorer import Scorer

Floats = NDArray[np.float64]
BASE = "base"
_TOGETHER = 64  # words whose masked states are forwarded together: a subset has 64 bits
_DIGITS = 3  # of log-odds: differences below are those of batch layouts, and ties go to the word that comes first


@dataclass(eq=False)
class InfluentialWords:
    """Chooses the variables of probes by their influence; the model is loaded for the first probe that asks.

    settings: with paths resolved. tokenizer, template: those that the run asks its probes with. checkpoint: the last
    one of a training that is over, None where there is none.
    """

    settings: RunSettings
    tokenizer: Any
    template: Template
    checkpoint: Path | None = None

    def __call__(self, probe: Probe, candidates: Sequence[Span], most: int) -> Probe:
        """The probe with the at most `most` spans of `candidates`, which are of its prompt, that move v most.

        Where it has words of its own these stay. How far they move v is measured either way, and said.
        """
        every = self._masked(replace(probe, words=tuple(candidates), words_in=PROMPT))
        if not probe.words:
            found = [leave_one_out(scorer, every) for scorer in self._in_turn()]
            spans = strongest(candidates, np.max(found, axis=0), most)
            probe = replace(probe, words=spans, words_in=PROMPT)
        chosen = self._masked(probe)
        moved = tuple(
            Moved(name, *(round(value, _DIGITS) for value in moves(scorer, chosen, every)))
            for name, scorer in zip(self._names, self._in_turn(), strict=True)
        )
        left = {owner for owner, taken in zip(every.owner, chosen.owner, strict=True) if owner >= 0 > taken}
        made = replace(probe, influence=Influence(len(left), moved))
        say(f"{safe_text(made.id, max_length=40)}: {made.influence_in_words}")
        return made

    @property
    def _names(self) -> list[str]:
        return [BASE] if self.checkpoint is None else [BASE, self.checkpoint.name]

    def _masked(self, probe: Probe) -> MaskedPrompt:
        return mask_probe(probe, self.tokenizer, self.template, self.settings.extraction.target)

    def _in_turn(self) -> Iterator[Scorer]:
        """The scorer with the base's weights, then with those of the checkpoint."""
        slot, scorer = self._loaded
        scorer.weights_changed()
        slot.clear()
        yield scorer
        if self.checkpoint is not None:
            scorer.weights_changed()
            slot.load(self.checkpoint)
            yield scorer

    @cached_property
    def _loaded(self) -> tuple[AdapterSlot, Scorer]:
        extraction = self.settings.extraction
        say(f"choosing words by their influence on v: {' and '.join(safe_text(name) for name in self._names)}")
        llm = load_llm(self.settings.model, dtype=weights_dtype(extraction.dtype))
        if self.checkpoint is not None:
            fit_vocabulary(llm.model, [self.checkpoint])
        baseline = baseline_vector(llm.model, extraction.baseline_vector, self.tokenizer)
        return AdapterSlot(llm.model), Scorer(llm.model, baseline, extraction.memory_gb * 1e9, precision=FLOAT32)


def leave_one_out(scorer: Scorer, prompt: MaskedPrompt) -> Floats:
    """|v(x_N) - v(x_N without i)| of each variable i of a prompt, of any number: (n,), log-odds."""
    found = []
    for start in range(0, prompt.n_variables, _TOGETHER):
        group = range(start, min(start + _TOGETHER, prompt.n_variables))
        full = (1 << len(group)) - 1
        scores = scorer.score_naively(_only(prompt, group), [full, *(full ^ 1 << i for i in range(len(group)))])
        found.append(np.abs(scores[1:] - scores[0]))
    return np.concatenate(found) if found else np.zeros(0)


def moves(scorer: Scorer, chosen: MaskedPrompt, every: MaskedPrompt) -> tuple[float, float]:
    """|v(x_N) - v(x)| where the variables of `chosen` are masked, and where those of `every` are too, in log-odds."""
    owner = tuple(
        0 if taken >= 0 else 1 if any_ >= 0 else -1 for taken, any_ in zip(chosen.owner, every.owner, strict=True)
    )
    whole, without, nothing = scorer.score_naively(replace(chosen, owner=owner, n_variables=2), [0b11, 0b10, 0b00])
    return abs(float(whole - without)), abs(float(whole - nothing))


def strongest(spans: Sequence[Span], influence: Floats, most: int) -> tuple[Span, ...]:
    """The at most `most` spans of the largest influence, in text order; of equal ones those that come first."""
    ranked = np.argsort(-np.round(influence, _DIGITS), kind="stable")[:most]
    return tuple(sorted(spans[i] for i in ranked))


def _only(prompt: MaskedPrompt, variables: Iterable[int]) -> MaskedPrompt:
    """The prompt with only these of its variables, numbered from 0; the others keep their embeddings."""
    place = {variable: i for i, variable in enumerate(variables)}
    return replace(prompt, owner=tuple(place.get(owner, -1) for owner in prompt.owner), n_variables=len(place))
