"""A second run next to the first: are its probes the same, and what does it encode at its last checkpoint.

The baseline LLM of Eq. (7), (9) is such a run: another LLM fine-tuned on the same data, with its own τ
by the same rule. An interaction of the first run generalizes where the second one encodes the same
(relation, words) with the same sign of effect.
"""

from collections.abc import Hashable, Sequence

import numpy as np

from sftscope.analysis.run.run_history import ProbeHistory, RunHistory
from sftscope.analysis.sets.chance import Signs
from sftscope.analysis.sets.evolution import Evolution
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.inputs.probes import Probe

Pair = tuple[int, int]  # a probe's index in the first run and in the second


def shared_probes(first: RunHistory, second: RunHistory) -> list[Pair]:
    """The probes that both runs have, whatever their ids: what a screen compares. A report asks for `match_probes`.

    Of several equal ones in `second` that with the same id, else the first.
    """
    known: dict[Hashable, dict[str, int]] = {}
    for index, part in enumerate(second.probes):
        known.setdefault(_content(part.probe), {}).setdefault(part.probe.id, index)
    pairs = []
    for index, part in enumerate(first.probes):
        if equal := known.get(_content(part.probe)):
            pairs.append((index, equal.get(part.probe.id, next(iter(equal.values())))))
    return pairs


def match_probes(history: RunHistory, other: RunHistory) -> list[int]:
    """For each probe of `history` the index of the same probe in `other`.

    SftscopeError unless both runs have the same probes: ids, instruction, input and chosen words; the
    order, the response and the LLM may differ.
    """
    places = {part.probe.id: index for index, part in enumerate(other.probes)}
    own = [part.probe for part in history.probes]
    for probe in own:
        shown = safe_text(repr(probe.id), max_length=60)
        if probe.id not in places:
            raise SftscopeError(
                f"{other.name}: has no probe {shown}, which {history.name} has; both runs need the same probes"
            )
        if difference := _difference(probe, other.probes[places[probe.id]].probe):
            raise SftscopeError(
                f"{other.name}: {difference} of probe {shown} differ from those in {history.name}; "
                "both runs need the same probes: extract one with the probes.jsonl of the other"
            )
    if len(places) > len(own):
        extra = next(name for name in places if name not in {probe.id for probe in own})
        shown = safe_text(repr(extra), max_length=60)
        raise SftscopeError(
            f"{history.name}: has no probe {shown}, which {other.name} has; both runs need the same probes"
        )
    return [places[probe.id] for probe in own]


def reference_signs(history: RunHistory, reference: Evolution) -> Sequence[Signs]:
    """Per probe of `history` the sign of each effect that the reference encodes at its last step, 0 elsewhere."""
    places = match_probes(history, reference.history)
    return [_signs(part, reference, p) for part, p in zip(history.probes, places, strict=True)]


def shared_signs(history: RunHistory, reference: Evolution) -> Sequence[Signs | None]:
    """As `reference_signs`, None for a probe that the reference does not have."""
    places = dict(shared_probes(history, reference.history))
    return [_signs(part, reference, places[p]) if p in places else None for p, part in enumerate(history.probes)]


def _signs(part: ProbeHistory, reference: Evolution, probe: int) -> Signs:
    """The signs of the probe index `probe` of the reference at the subsets of `part`'s effects: (2, K)."""
    last = reference.history.steps.size - 1
    table = reference.history.probes[probe].table.on(part.table.subsets)
    return np.where(reference.encodes(probe, last, table, last), np.sign(table.at(last)), 0).astype(np.int8)


def _content(probe: Probe) -> Hashable:
    """All that an interaction depends on; probes of equal content differ in nothing that `_difference` names."""
    return probe.instruction, probe.input, probe.words, probe.words_in


def _difference(first: Probe, second: Probe) -> str:
    """What differs between two probes of one id; empty where nothing does that an interaction depends on."""
    if first.instruction != second.instruction:
        return "the instruction"
    if first.input != second.input:
        return "the text"
    return "" if (first.words, first.words_in) == (second.words, second.words_in) else "the chosen words"
