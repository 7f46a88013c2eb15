"""What run.toml, the logs and the step files themselves say against a run: estimates, precision, machines, labels that
look the same, words that move little, measurements that cannot be used, checkpoints that repeat others.

Their values come from files, so every line is made safe here.
"""

from collections.abc import Mapping, Sequence

from sftscope.analysis.run.machines import machines_sentence
from sftscope.analysis.run.run_history import RunHistory
from sftscope.analysis.trust.estimate_intervals import estimate_sentence
from sftscope.analysis.trust.placebo import TRUSTED_JACCARD
from sftscope.foundation.safe_text import safe_text
from sftscope.inputs.word_influence import influence_warnings

_SHOWN = 6
_EXACT = "float32"


def caveats(history: RunHistory) -> list[str]:
    """One safe line each; none for a float32 run of one machine whose labels begin differently."""
    lines = (
        estimate_sentence(history),
        _precision(history),
        machines_sentence(history.machines),
        _collisions(history),
        *(f"{line[0].upper()}{line[1:]}." for line in influence_warnings([part.probe for part in history.probes])),
        _unused(history),
        _repeats(history),
    )
    return [line for line in lines if line]


def _precision(history: RunHistory) -> str:
    taken = history.precision.get("taken", _EXACT)
    if taken == _EXACT:
        return ""
    name = safe_text(str(taken), max_length=20)
    candidates = history.precision.get("candidates")
    trials = candidates if isinstance(candidates, Sequence) else []
    for trial in trials:
        if isinstance(trial, Mapping) and trial.get("precision") == taken and _is_number(trial.get("jaccard")):
            jaccard = float(trial["jaccard"])
            verdict = "" if jaccard >= TRUSTED_JACCARD else f": below {TRUSTED_JACCARD}, much of a change is noise"
            return f"Scored in {name}, whose sets had a Jaccard index of {jaccard:.2f} with those of float32{verdict}."
    return f"Scored in {name}; its effect on the sets was not measured."


def _collisions(history: RunHistory) -> str:
    groups = history.run.get("collisions")
    if not isinstance(groups, Mapping) or not groups:
        return ""
    named = [
        " = ".join(safe_text(str(label), max_length=40) for label in group[:_SHOWN])
        for group in list(groups.values())[:_SHOWN]
        if isinstance(group, Sequence) and not isinstance(group, str)
    ]
    return f"Labels that share what is scored, and so look the same: {'; '.join(named)}." if named else ""


def _unused(history: RunHistory) -> str:
    problems = history.log_problems
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"Not used: {problems[0]}{more}." if problems else ""


def _repeats(history: RunHistory) -> str:
    repeats = list(history.same_weights.items())
    if not repeats:
        return ""
    named = ", ".join(f"step {step} as step {first}" for step, first in repeats[:_SHOWN])
    more = f" and {len(repeats) - _SHOWN} more" if len(repeats) > _SHOWN else ""
    return f"The same weights, so no evidence of their own: {named}{more}."


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
