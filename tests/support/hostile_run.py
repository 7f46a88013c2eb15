"""A run whose every text is hostile: escape sequences, markup, characters without width or with two."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sample_history import write_sample_run
from sftscope.monitor.headline import Headline, append_headline
from sftscope.store import RunFolder
from sftscope.store.steps.step_file import to_bytes

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
# Words that mean something to a terminal, Markdown, HTML or LaTeX
HOSTILE_WORDS = [
    "\x1b]52;c;AAAA\x07",
    "|pipe|",
    "<script>",
    "[x](http://y)",
    "‮rtl",
    "`tick`",
    "**b**",
    "\\",
    "日本語",
    "e\nf",
]


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


def write_hostile_files(path: Path, rng: random.Random) -> None:
    """Beside the probes of a hostile run: text in every string of every other file, and in names of files."""

    def evil() -> str:
        return hostile_text(rng)

    folder = RunFolder(path)
    known = {"dtype": evil(), "adapter_sha256": evil(), "zeta_source": [evil()], "baseline_vector": {"kind": evil()}}
    precision = {
        "asked": evil(),
        "taken": evil(),
        evil(): evil(),
        "candidates": [{"precision": evil(), "jaccard": 0.5}],
    }
    provenance = {**known, "precision": precision, evil(): {evil(): [evil(), {evil(): evil()}]}}
    for step in folder.steps():
        data = to_bytes(replace(folder.read_step(step), provenance=provenance))
        folder.step_file(step).write_bytes(data)
    folder.placebo_folder.mkdir()
    last = folder.steps()[-1]
    folder.placebo_file(last).write_bytes(folder.step_file(last).read_bytes())
    folder.placebo_file(last + 1).write_bytes(folder.step_file(last).read_bytes())

    content = {**folder.read_run(), "device": evil(), "versions": {evil(): evil(), "sftscope": evil()}}
    content["collisions"] = {evil(): [evil(), evil()]}
    content["attached"] = {"checkpoints": evil(), "eval_set": evil(), evil(): [evil(), {evil(): evil()}]}
    content["source"] = {"config": evil(), "config_folder": evil()}
    content["hashes"] = {evil(): evil()}
    content["settings"][evil()] = {evil(): evil()}
    folder.write_run({**content, "identity": evil()})

    folder.precision_file.write_text(json.dumps(precision))
    folder.training_log.write_text(json.dumps({"step": 0, "kind": evil(), evil(): evil(), "train": 9.5}) + "\n")
    row = {"step": last, "kind": "checkpoint", "train": 9.5, "eval": 9.5, evil(): 1.5}
    folder.append_log(row)
    append_headline(folder, Headline(last, 1, 1, 1, 1, 1, 1, 1, 0, 0, evil(), evil()))
    for name in ("listening", "answer", "request"):
        text = {"host": evil(), "pid": 1, "request": evil(), "reason": evil(), "step": 1, "at": 1}
        (path / f"{name}.json").write_text(json.dumps(text))
    for name in (evil(), f"other{evil()}-1"):
        worker = {"name": evil(), "state": "failed", "task": evil(), "probes": 1, "seconds": 1.0, "failure": evil()}
        _write(folder.workers_folder / f"{name}.json", json.dumps(worker))
    for place in (path, folder.steps_folder, folder.placebo_folder, folder.checkpoints, path / "blocks"):
        _write(place / f"{evil()}.h5", evil())
    _write(folder.steps_folder / "step_00000077.h5", evil())
    _write(path / "sidecar.log", evil())
    write_hostile_checkpoint(folder.checkpoints / "checkpoint-4", evil)


def write_hostile_checkpoint(folder: Path, evil: Callable[[], str]) -> None:
    """A checkpoint of another trainer with text in every string: names of eval sets, of metrics, of tensors."""
    row: dict[str, Any] = {
        "step": 4,
        "loss": 1.5,
        **{f"eval_{evil()}_loss": 1.5 for _ in range(2)},
        evil(): evil(),
    }
    state = {"global_step": 4, "max_steps": 4, "log_history": [row], evil(): evil(), "best_model_checkpoint": evil()}
    _write(folder / "trainer_state.json", json.dumps(state))
    config = {"peft_type": evil(), "init_lora_weights": evil(), "base_model_name_or_path": evil(), evil(): evil()}
    _write(folder / "adapter_config.json", json.dumps(config))
    header = json.dumps({evil(): {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    _write(folder / "adapter_model.safetensors", len(header).to_bytes(8, "little") + header + bytes(4))


def _write(file: Path, content: str | bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
