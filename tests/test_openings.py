"""Every place of the source that opens, copies or parses a file is one that was thought about."""

import ast
from collections import Counter
from pathlib import Path

import sftscope
import sftscope_tui

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
    "files/numbers.py": ({"np.load"}, "bytes whose header was compared with their length"),
    "files/toml_text.py": ({"tomllib.loads"}, "text whose size and depth were looked at"),
    "store/atomic.py": ({"os.open"}, "a folder, to sync it"),
    "store/claims.py": ({"hardlink_to"}, "a claim put back under its own name"),
    "store/step_file.py": ({"h5py.File"}, "a buffer of its own, to write"),
    "store/workers.py": ({"open"}, "a descriptor of open_new"),
    "store/step_datasets.py": ({"h5py.File"}, "bytes, in the confined child"),
    "monitor/sidecar.py": ({"open"}, "a descriptor of open_to_append"),
    "llm/weight_files.py": ({"mmap.mmap"}, "a file of `opened`"),
    "llm/adapters.py": ({"load_file", "get_peft_model"}, "weights whose header was read, a config of checked values"),
    "llm/loading.py": ({"from_pretrained"}, "a folder that check_weights or check_files has looked at"),
    "llm/full_weights.py": ({"from_pretrained"}, "a checkpoint that check_weights has looked at"),
    "llm/tokenizer_trial.py": ({"from_buffer"}, "bytes, in the confined child"),
    "training/sources.py": ({"datasets.load_dataset", "parquet.ParquetFile"}, "after check_files; a file of `opened`"),
    "child.py": ({"read_text"}, "/proc"),
    "threads.py": ({"read_text"}, "/proc and /sys"),
    "bench_memory.py": ({"read_text"}, "/proc"),
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
