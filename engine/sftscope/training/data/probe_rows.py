"""Which rows of a data set make good probes: of every label, or of every length, by a seed."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

from sftscope.inputs.probes import Probe
from sftscope.training.data.shapes import Row

MOST_LABELS = 100
_REPEATS = 4  # data have labels where an answer recurs so often, on average


def candidates(rows: Sequence[Row], count: int, seed: int) -> Iterator[int]:
    """The places of usable rows, best first: one of each stratum in turn, and within a stratum by the seed.

    Strata are the answers where these recur (labels, the most frequent first), else `count` ranges of equal size of the
    prompt's length. Rows of a conversation are left out, as a probe is one prompt; so are prompts that came before.
    """
    rng = random.Random(seed)
    strata = _strata(rows, list(_single(rows)), count)
    for stratum in strata:
        rng.shuffle(stratum)
    while any(strata):
        for stratum in strata:
            if stratum:
                yield stratum.pop()


def as_probe(row: Row, name: str, group: str) -> Probe:
    """A row as a probe whose words are still to be chosen."""
    return Probe(name, row.instruction, row.input, row.response.strip(), group=group)


def _single(rows: Sequence[Row]) -> Iterator[int]:
    """Rows of one prompt and one answer, each prompt once."""
    seen: set[str] = set()
    for place, row in enumerate(rows):
        if not row.history and row.prompt.strip() and row.response.strip() and row.prompt not in seen:
            seen.add(row.prompt)
            yield place


def _strata(rows: Sequence[Row], places: Sequence[int], count: int) -> list[list[int]]:
    answers = Counter(rows[place].response.strip() for place in places)
    if len(answers) <= min(MOST_LABELS, len(places) // _REPEATS):
        order = {answer: number for number, (answer, _) in enumerate(answers.most_common())}
        strata: list[list[int]] = [[] for _ in order]
        for place in places:
            strata[order[rows[place].response.strip()]].append(place)
        return strata
    by_length = sorted(places, key=lambda place: (len(rows[place].prompt), place))
    bounds = [len(by_length) * number // count for number in range(count + 1)]
    return [by_length[first:last] for first, last in pairwise(bounds)]
