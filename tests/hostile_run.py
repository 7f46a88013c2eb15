"""A run whose every text is hostile: escape sequences, markup, characters without width or with two."""

import json
import random
from pathlib import Path

from sample_history import write_sample_run
from sftscope.store import RunFolder

EVIL = (
    "\x1b]52;c;SFhR\x07",
    "\x1b[2J",
    "\x1bP1$r\x1b\\",
    "\x9b31m",
    "\x1b]8;;http://x\x1b\\",
    "\u202e",
    "\u200b",
    "[/]",
    "[@click=app.quit]",
    "房🙂",
    "e\u0301",
    "\x7f",
)
# Those that Textual itself never writes (BEL ends a sequence of its own): they can only come from data
AT_THE_DRIVER = ("\x1b]52;c;SFhR", "\x1bP1$r", "\x9b31m", "\x1b]8;;http://x", "\u202e", "\u200b", "\x7f")


def hostile_text(rng: random.Random) -> str:
    """A marker between two of the sequences; holds no space, so that it is a word."""
    return f"{rng.choice(EVIL)}HXQ{rng.randrange(10**6)}{rng.choice(EVIL)}"


def write_hostile_run(path: Path, rng: random.Random, *, n_probes: int, n: int = 5) -> Path:
    """A sample run of three steps; its probes and targets hold n_probes · (n + 4) hostile strings, run.toml three."""
    write_sample_run(path, n_steps=3, n_probes=n_probes, n=n, words=[hostile_text(rng) for _ in range(n)])
    folder = RunFolder(path)
    file = path / "probes.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for index, row in enumerate(rows):
        words = [hostile_text(rng) for _ in range(n)]
        spans, at = [], 0
        for word in words:
            spans.append([at, at + len(word)])
            at += len(word) + 1
        row |= {"id": f"{hostile_text(rng)}{index}", "input": " ".join(words), "words": spans}
        row |= {"instruction": hostile_text(rng), "response": hostile_text(rng)}
        row["target"] = {"id": 5, "text": hostile_text(rng)}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    content = folder.read_run()
    content["model"] = {"name": hostile_text(rng)}
    content[hostile_text(rng)] = hostile_text(rng)
    folder.write_run(content)
    return path
