"""A `tokenizer.json` is tried in a process of its own first: it is a program that came with somebody's model.

Its normalizers can multiply a text without end, its patterns can search for years, and Ctrl-C does not reach the
library that runs them. The child tokenises texts of ours with limits on computing and memory; what passes is loaded
as usual. A pattern that is slow only on texts unlike these is not found so.
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from subprocess import Popen

from sftscope.files.opening import failed_to_read, read_plain
from sftscope.foundation.errors import NotReadError, SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.foundation.sandbox import (
    Child,
    ChildEndedError,
    Ending,
    computing,
    confine,
    is_machine_short,
    limit_memory,
    ready,
    receive,
)

SECONDS, BYTES_PER_SECOND = 20.0, 2e6  # of computing for a trial; a tokenizer of a million tokens has 64 MiB
GENEROUS = 3.0  # times as much at the second try
MAX_BYTES = 2**28
MEMORY, MEMORY_PER_BYTE = 2**30, 40  # bytes beyond what the child had when it started
_MOST_TOKENS = 16  # of a byte: byte fallback makes one of each, a normalizer a few
_WORDS = (
    "The room was NOT happy, wasn't it?  3.14159 + 1,000,000 = x_1; naïve café Größe — “日本語テキスト” 한국어 ру́сский "
)
_TEXTS = (
    "",
    _WORDS + "नमस्ते مرحبا 🙂👩‍👩‍👧 \r\n\r\n\tdef f(x):\n        return x\n",
    *(
        character * 2000
        for character in ("a", "A", " ", "\n", "1", ".", "é", "語", "a ", "a1", "x\n", "'s", "<|", "ab")
    ),
    _WORDS * 40,
)


def try_tokenizer(path: Path) -> None:
    """SftscopeError unless the tokenizer.json at `path` tokenises plain texts with little computing and memory.

    NotReadError where it could not be tried now, by the machine's doing.
    """
    try:
        data = read_plain(path, MAX_BYTES)
    except OSError as error:
        raise failed_to_read(path, error) from None
    digest = hashlib.sha256(data).digest()
    if digest in _PASSED:
        return
    try:
        given = SECONDS + len(data) / BYTES_PER_SECOND
        _TRIAL.ask(
            lambda process, seconds: _exchange(process, data, path, seconds),
            (given, GENEROUS * given),
            passes=SftscopeError,
        )
    except ChildEndedError as error:
        if error.how in (Ending.MACHINE, Ending.NOT_STARTED):
            raise NotReadError(
                f"{path}: tried in a process of its own, which {error}; run the same command again"
            ) from error
        raise _failed(path, f"on a text of {max(map(len, _TEXTS))} characters it {error}") from error
    _PASSED.add(digest)


_TRIAL = Child("sftscope.llm.prompting.tokenizer_trial", "tokenizers are tried")
_PASSED: set[bytes] = set()


def _failed(path: Path, reason: str) -> SftscopeError:
    return SftscopeError(f"{path}: cannot be used: {safe_text(reason, max_length=200)}; get the model again")


def _exchange(process: Popen[bytes], data: bytes, path: Path, seconds: float) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({"size": len(data), "seconds": seconds}).encode() + b"\n")
    process.stdin.write(data)
    process.stdin.flush()
    answer = receive(process.stdout, 2**16)
    if "short" in answer:
        raise NotReadError(f"{path}: no memory is left to try it; free some and run the same command again")
    if error := answer["error"]:
        raise _failed(path, str(error))


# In the child.


def serve() -> None:
    """Answer questions until the parent closes the pipe."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # no threads, which could not be started either
    os.environ["RAYON_NUM_THREADS"] = "1"
    _tried(b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}')  # imports what a trial needs
    base = confine()
    ready()
    while True:
        try:
            question = receive(sys.stdin.buffer, 2**16)
        except EOFError:
            return
        data = sys.stdin.buffer.read(question["size"])
        if base:
            limit_memory(base + MEMORY + MEMORY_PER_BYTE * len(data))
        with computing(question["seconds"]):
            error = _tried(data)
        memory = MEMORY + MEMORY_PER_BYTE * len(data)
        del data
        answer = {"short": True} if error == MemoryError.__name__ and is_machine_short(memory) else {"error": error}
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


def _tried(data: bytes) -> str:
    """What is wrong with a tokenizer; empty where nothing was noticed."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_buffer(data)
        for text in _TEXTS:
            found = len(tokenizer.encode(text, add_special_tokens=True).ids)
            if found > _MOST_TOKENS * (len(text.encode()) + 64):
                return f"it makes {found} tokens of {len(text)} characters"
    except MemoryError:
        return MemoryError.__name__
    except BaseException as error:  # also what Rust raises when it panics, which is no Exception
        return str(error)[:1000] or type(error).__name__
    return ""
