"""A config with a tiny model, its data and its probes: what most tests of a whole job begin with."""

import json
from pathlib import Path

from toy_llm import save_toy_llm

SENTENCES = [
    "the room was not happy but quiet",
    "staff never glad and the food was awful",
    "lovely warm bed , good street",
]
GRID = (0, 1, 2, 4, 8)


def write_config(folder: Path, *, architecture: str = "llama", **replaced: str) -> Path:
    """A config with its model, data and probes in `folder`."""
    save_toy_llm(folder / "toy", architecture)
    rows = [
        {"instruction": "how does the guest feel ?", "input": SENTENCES[i % 3], "output": ["sad", "bad", "good"][i % 3]}
        for i in range(12)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    probes = [{"instruction": row["instruction"], "input": row["input"], "response": row["output"]} for row in rows[:3]]
    (folder / "probes.jsonl").write_text("".join(json.dumps(probe) + "\n" for probe in probes))
    config = folder / "config.toml"
    text = f"""
[model]
path = "toy"
[data]
train = "rows.jsonl"
eval = "rows.jsonl"
[probes]
file = "probes.jsonl"
n_words = 4
[training]
epochs = 2
effective_batch_size = 4
micro_batch_size = 2
learning_rate = 1e-2
warmup_ratio = 0
checkpoints = {list(GRID)}
[extraction]
check_states = 4
"""
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    config.write_text(text)
    return config
