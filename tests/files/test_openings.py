"""Every place of the source that opens, copies or parses a file is one that was thought about."""

import ast
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import sftscope
import sftscope_tui
from sftscope.decomposition.score_file import read_sampled_scores, read_scores
from sftscope.distributed.submit import planned
from sftscope.files import claims
from sftscope.files.hashes import file_sha256
from sftscope.foundation.errors import SftscopeError
from sftscope.inputs import row_files
from sftscope.inputs.probes import read_probes
from sftscope.inputs.settings import DataSettings, load_settings
from sftscope.llm.loading import saved_tokenizer
from sftscope.monitor.headline import read_headlines
from sftscope.store import RunFolder
from sftscope.store.sharing.training_requests import listening, read_answer, take
from sftscope.store.sharing.worker_status import read_workers
from sftscope.training.data.sources import Source, content_hash, records, source_of
from sftscope_tui.state.preferences import Remembered, recall

ROOTS = [Path(package.__file__).parent for package in (sftscope, sftscope_tui)]
OPENING = {"open", "read_text", "read_bytes", "write_text", "write_bytes", "touch", "hardlink_to", "symlink_to"}
LIBRARIES = {
    "np.load",
    "np.fromfile",
    "np.memmap",
    "mmap.mmap",
    "h5py.File",
    "tomllib.load",
    "tomllib.loads",
    "json.load",
    "pickle.load",
    "pickle.loads",
    "torch.load",
    "shutil.copy",
    "shutil.copy2",
    "shutil.copyfile",
    "shutil.copytree",
    "shutil.move",
    "load_file",
    "safe_open",
    "datasets.load_dataset",
    "parquet.ParquetFile",
    "get_peft_model",
}
LOADING = {"from_pretrained", "from_json_file", "from_file", "from_buffer"}

# file → what it opens, and why that is no risk
ALLOWED: dict[str, tuple[set[str], str]] = {
    "files/opening.py": ({"os.open", "open"}, "the one place"),
    "files/arrays.py": ({"np.load"}, "bytes whose header was compared with their length"),
    "files/toml_text.py": ({"tomllib.loads"}, "text whose size and depth were looked at"),
    "files/atomic.py": ({"os.open"}, "a folder, to sync it"),
    "files/claims.py": ({"hardlink_to"}, "a claim put back under its own name"),
    "store/steps/step_file.py": ({"h5py.File"}, "a buffer of its own, to write"),
    "store/sharing/worker_status.py": ({"open"}, "a descriptor of open_new"),
    "store/steps/step_reader.py": ({"h5py.File"}, "bytes, in the confined child"),
    "monitor/sidecar.py": ({"open"}, "a descriptor of open_to_append"),
    "llm/weights/untrusted_weights.py": ({"mmap.mmap"}, "a file of `opened`"),
    "llm/weights/adapters.py": (
        {"load_file", "get_peft_model"},
        "weights of a read header, a config of checked values",
    ),
    "monitor/live.py": ({"from_pretrained"}, "the config of the model in training, of its own process"),
    "llm/loading.py": ({"from_pretrained"}, "a folder that check_weights or check_files has looked at"),
    "llm/weights/full_weights.py": ({"from_pretrained"}, "a checkpoint that check_weights has looked at"),
    "llm/prompting/tokenizer_trial.py": ({"from_buffer"}, "bytes, in the confined child"),
    "training/data/sources.py": (
        {"datasets.load_dataset", "parquet.ParquetFile"},
        "after check_files",
    ),
    "foundation/sandbox.py": ({"read_text", "open", "mmap.mmap"}, "/proc; a pipe's descriptor; memory of its own"),
    "foundation/streams.py": ({"os.open"}, "/dev/null"),
    "inputs/setting_texts.py": ({"tomllib.loads"}, "our own presets"),
    "inputs/presets/__init__.py": ({"read_text"}, "our own presets"),
    "foundation/threads.py": ({"read_text"}, "/proc and /sys"),
    "bench/memory.py": ({"read_text"}, "/proc"),
    "attach/attach.py": ({"read_bytes"}, "the run's own log, which it wrote"),
    "attach/copies.py": ({"read_text", "write_text", "open"}, "a copy that it makes under a name of its own"),
}


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def opening_calls(source: str) -> Counter[str]:
    """What a source opens files with, by name."""
    found: Counter[str] = Counter()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name, last = dotted(node.func), dotted(node.func).rpartition(".")[2]
        if name == "os.open" or name in LIBRARIES:
            found[name] += 1
        elif (
            last in OPENING and not (last == "open" and name not in ("open",) and not is_path_open(node))
        ) or last in LOADING:
            found[last] += 1
    return found


def is_path_open(node: ast.Call) -> bool:
    """Whether `x.open(…)` opens a file: with no argument, or a mode first."""
    first = node.args[0] if node.args else None
    return first is None or (isinstance(first, ast.Constant) and isinstance(first.value, str) and len(first.value) <= 3)


def test_files_are_opened_in_the_places_that_are_known() -> None:
    unknown = []
    for root in ROOTS:
        for file in sorted(root.rglob("*.py")):
            name = str(file.relative_to(root))
            allowed = ALLOWED.get(name, (set(), ""))[0]
            unknown += [f"{name}: {call}" for call in opening_calls(file.read_text()) if call not in allowed]
    assert not unknown, f"use sftscope.files, or add the place with its reason: {unknown}"


def test_the_search_finds_what_it_is_for() -> None:
    source = (
        "open(p); p.open(); p.open('rb'); os.open(p, 0); p.read_text(); np.load(p); AutoTokenizer.from_pretrained(p)\n"
        "self.query_one(Prompt).open(purpose, text, hint)\n"
    )
    assert opening_calls(source) == {"open": 3, "os.open": 1, "read_text": 1, "np.load": 1, "from_pretrained": 1}


def pipe(folder: Path, name: str) -> Path:
    os.mkfifo(folder / name)
    return folder / name


READERS: dict[str, Callable[[Path], object]] = {
    "config": lambda folder: load_settings(pipe(folder, "config.toml")),
    "probes": lambda folder: read_probes(pipe(folder, "probes.jsonl"), n_words=3, seed=0),
    **{
        f"training rows, {suffix}": lambda folder, name=f"x.{suffix}": list(records(Source(str(pipe(folder, name)))))
        for suffix in ("jsonl", "json", "csv", "tsv", "parquet")
    },
    "training rows, a folder": lambda folder: list(records(Source(str(pipe(folder, "x.jsonl").parent)))),
    "hash of training rows": lambda folder: content_hash(Source(str(pipe(folder, "x.jsonl")))),
    "data set info": lambda folder: source_of(
        DataSettings(train="x", dataset_info=str(pipe(folder, "dataset_info.json"))), "train"
    ),
    "scores": lambda folder: read_scores(pipe(folder, "x.npy")),
    "sampled scores": lambda folder: read_sampled_scores(pipe(folder, "x.npz")),
    "plan": lambda folder: planned(pipe(folder, "plan.json"), 2),
    "hash": lambda folder: file_sha256(pipe(folder, "x")),
    "run": lambda folder: RunFolder(pipe(folder, "run.toml").parent).read_run(),
    "request": lambda folder: take(RunFolder(pipe(folder, "request.json").parent)),
    "headlines": lambda folder: read_headlines(RunFolder(pipe(folder, "headlines.jsonl").parent), 0),
    "tokenizer": lambda folder: saved_tokenizer(pipe(folder, "tokenizer.json").parent),
}  # fmt: skip
GIVEN_UP: dict[str, Callable[[Path], object]] = {  # what is missing or damaged is as good as none
    "preferences": lambda folder: recall(pipe(folder, "explorer.json").parent) == Remembered(),
    "listening": lambda folder: listening(RunFolder(pipe(folder, "listening.json").parent)) is None,
    "answer": lambda folder: read_answer(RunFolder(pipe(folder, "answer.json").parent)) is None,
    "owner of a claim": lambda folder: claims._owner(pipe(folder, "claim")) == "",
    "worker": lambda folder: read_workers(pipe(folder, "a.json").parent) == (),
}


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_in_place_of_a_file_is_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(SftscopeError, match="not a regular file"):
        READERS[name](tmp_path)


@pytest.mark.parametrize("name", GIVEN_UP)
def test_a_pipe_in_place_of_a_file_that_nothing_needs_is_none(name: str, tmp_path: Path) -> None:
    assert GIVEN_UP[name](tmp_path)


def test_a_row_longer_than_any_conversation_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "MAX_ROW_BYTES", 2**20)
    file = tmp_path / "x.jsonl"
    file.write_bytes(b'{"a": 1}\n{"a": "' + b"x" * 2**20 + b'"}\n')
    rows = records(Source(str(file)))
    assert next(rows)[1] == {"a": 1}
    with pytest.raises(SftscopeError, match=r"line 2: longer than 1 MiB; expected one row a line"):
        next(rows)


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    """A byte order mark, blank lines, line ends of Windows, none at the end, and separators within a text."""
    file = tmp_path / "x.jsonl"
    file.write_bytes('\ufeff{"a": 1}\r\n\n  \n{"a": "\u2028\x85"}\n3'.encode())
    assert list(row_files.read_jsonl(file)) == [(1, {"a": 1}), (4, {"a": "\u2028\x85"}), (5, 3)]
    file.write_bytes(b'1\n"\xff"\n')
    with pytest.raises(SftscopeError, match="line 2: not valid UTF-8"):
        list(row_files.read_jsonl(file))
