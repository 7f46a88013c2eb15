"""What the explorer starts with: the options of the command line, checked."""

from dataclasses import dataclass, field

from sftscope.analysis import DEFAULT_HYSTERESIS, DEFAULT_RULE
from sftscope.analysis.sets.evolution import check_hysteresis
from sftscope.analysis.sets.thresholds import ThresholdRule, default_rule
from sftscope.analysis.trust.noise_support import why_no_support
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text, whole_number
from sftscope_tui.drawing.palette import Glyphs
from sftscope_tui.state.command_line import sort_named, view_named
from sftscope_tui.state.view_state import Sort, View


@dataclass(frozen=True)
class Start:
    """step, base, probe are names of things in a run that is not read yet; base is a number or `previous`.

    train: the training rows, a file or hub name; empty: those that the run names.
    """

    step: int | None = None
    base: str = ""
    probe: str = ""
    rule: ThresholdRule = field(default_factory=default_rule)
    view: View = View.TRENDS
    filter: str = ""
    sort: Sort | None = None
    glyphs: Glyphs | None = None
    hysteresis: float = DEFAULT_HYSTERESIS
    trajectory: bool = False
    support: bool = False
    train: str = ""

    @classmethod
    def parse(
        cls,
        *,
        step: int | None = None,
        base: str = "",
        probe: str = "",
        tau: str = DEFAULT_RULE,
        view: str = "",
        filter: str = "",
        sort: str = "",
        glyphs: str = "",
        hysteresis: float = DEFAULT_HYSTERESIS,
        trajectory: bool = False,
        support: bool = False,
        train: str = "",
    ) -> "Start":
        """From text; SftscopeError names what is not known."""
        chosen, order = view_named(view or "trends"), sort_named(sort) if sort else None
        if chosen is None:
            raise _unknown("--view", view, [each.value.lower() for each in View])
        if sort and order is None:
            raise _unknown("--sort", sort, [each.name.lower() for each in Sort])
        if glyphs and glyphs not in list(Glyphs):
            raise _unknown("--glyphs", glyphs, list(Glyphs))
        if base and base != "previous" and whole_number(base) is None:
            raise SftscopeError(f"--base {safe_text(repr(base), max_length=40)}: expected a step number or 'previous'")
        rule = ThresholdRule.parse(tau)
        check_hysteresis(hysteresis)
        if support and (why := why_no_support()):
            raise SftscopeError(why)
        return cls(
            step,
            base,
            probe,
            rule,
            chosen,
            filter,
            order,
            Glyphs(glyphs) if glyphs else None,
            hysteresis,
            trajectory,
            support,
            train,
        )


def _unknown(option: str, value: str, known: list[str]) -> SftscopeError:
    return SftscopeError(f"{option} {safe_text(repr(value), max_length=40)}: expected one of {', '.join(known)}")
