"""The analysis: from stored effects to what SFT removed, preserved and invented. Never imports torch."""

# not in `thresholds`: the commands know them before NumPy is imported
DEFAULT_RULE = "max-step:0.05"  # needs no other step, so a later one cannot rewrite what an earlier one encodes
DEFAULT_HYSTERESIS = (
    0.5  # of τ; false changes fall from 17 and 27 a step to 3 and 7 on the sample runs, see `evolution`
)
