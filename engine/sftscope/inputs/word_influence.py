"""How far the words of a probe move v, as it was measured when they were chosen."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sftscope.foundation.safe_text import safe_text

if TYPE_CHECKING:
    from sftscope.inputs.probes import Probe

# Share of v that words have to move, or there is a warning; below it most of what the answer rests on stays unmasked.
ENOUGH = 0.5
_MOST_WEIGHTS = 8  # that a probes file may name
_SHOWN = 4  # probes that a warning names


@dataclass(frozen=True)
class Moved:
    """What masking does to v, in log-odds, with one set of weights.

    weights: `base`, or the folder name of a checkpoint. words: |v(x_N) - v(x)| where the variables are masked; all:
    where every word of the prompt is.
    """

    weights: str
    words: float
    all: float

    @property
    def is_enough(self) -> bool:
        """Whether the variables move at least the share `ENOUGH` of what all words do."""
        return self.words >= ENOUGH * self.all

    def in_words(self) -> str:
        """The two numbers; more than all words together is no part of them (their effects cancel)."""
        together = f"of {self.all:.1f}" if self.words <= self.all else f"(all words together by {self.all:.1f})"
        return f"{self.words:.1f} {together} on {safe_text(self.weights, max_length=40)}"


@dataclass(frozen=True)
class Influence:
    """others: words of the prompt that are no variables. moved: with each of the weights that were measured."""

    others: int
    moved: tuple[Moved, ...]

    @property
    def is_enough(self) -> bool:
        """Whether it is with all weights that were measured."""
        return all(each.is_enough for each in self.moved)

    def in_words(self, chosen: int) -> str:
        """One line; chosen: how many variables there are."""
        first, *more = self.moved
        words = f"these {chosen} words move v by" if chosen != 1 else "this word moves v by"
        others = f"{self.others} others stay as they are" if self.others != 1 else "1 other stays as it is"
        return "; ".join([f"{words} {first.in_words()}", *(each.in_words() for each in more), others])

    def as_row(self) -> dict[str, Any]:
        """As probes.jsonl holds it."""
        return {"others": self.others, "moved": [asdict(each) for each in self.moved]}


def influence_in(row: Any) -> Influence | None:
    """The influence in a row of probes.jsonl; None where none was measured, or what is there has another form."""
    content = row.get("influence")
    moved = content.get("moved") if isinstance(content, dict) else None
    if not isinstance(moved, list) or not 1 <= len(moved) <= _MOST_WEIGHTS or type(content.get("others")) is not int:
        return None
    for each in moved:
        texts = isinstance(each, dict) and type(each.get("weights")) is str
        if not texts or any(type(each.get(name)) not in (int, float) for name in ("words", "all")):
            return None
    return Influence(content["others"], tuple(Moved(each["weights"], each["words"], each["all"]) for each in moved))


def influence_warnings(probes: Sequence["Probe"]) -> Iterable[str]:
    """What to know of probes whose variables move little of v, in safe lines."""
    weak = [probe for probe in probes if probe.influence is not None and not probe.influence.is_enough]
    if not weak:
        return
    named = ", ".join(
        f"{safe_text(probe.id, max_length=40)} ({least.words:.1f} of {least.all:.1f})"
        for probe in weak[:_SHOWN]
        if probe.influence
        for least in [min(probe.influence.moved, key=lambda each: each.words - ENOUGH * each.all)]
    )
    more = ", …" if len(weak) > _SHOWN else ""
    yield (
        f"in {len(weak)} of {len(probes)} probes the variables move less than {ENOUGH:.0%} of what all words of the "
        f"prompt move v by ({named}{more}): what is found says little of these answers; take more words ([probes] "
        'n_words), phrases ([probes] variables = "phrases"), or probes with shorter prompts'
    )
