"""Model folders and GGUF files of unknown origin: one clear line, no code of theirs, no memory that they declare."""

import json
import os
import pickle
import shutil
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from sftscope.foundation.errors import SftscopeError
from sftscope.inputs.settings import ModelSettings
from sftscope.llm.loading import load_llm, load_tokenizer
from sftscope.llm.prompting import tokenizer_trial
from sftscope.llm.weights.untrusted_weights import check_weights
from toy_llm import save_toy_llm


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy_llm(tmp_path_factory.mktemp("model") / "toy")


@pytest.fixture(scope="module")
def small_gguf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A GGUF file with settings of every kind and three tensors, by the library that defines the format."""
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 2)
    writer.add_float32("llama.rope.freq_base", 1e4)
    writer.add_bool("x.flag", True)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "房"])
    writer.add_array("tokenizer.ggml.scores", [0.5, 1.5])
    for number in range(3):
        writer.add_tensor(f"blk.{number}.weight", np.ones((4, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def settings(path: Path) -> ModelSettings:
    return ModelSettings(path=str(path), device="cpu")


class _Trap:
    """Pickled, it makes a file when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def edit_json(name: str, **changes):
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **changes}))

    return change


def write(name: str, content: bytes):
    return lambda folder: (folder / name).write_bytes(content)


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Trap(folder.parent / "ran")))


def own_code(folder: Path) -> None:
    (folder / "modeling_evil.py").write_text(f"open({str(folder.parent / 'ran')!r}, 'w')\nclass Evil: pass")
    edit_json(
        "config.json",
        model_type="evil",
        auto_map=dict.fromkeys(("AutoConfig", "AutoModelForCausalLM"), "modeling_evil.Evil"),
    )(folder)


def pipe(name: str):
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return change


def device(name: str):
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to("/dev/zero")

    return change


def multiply(content: str) -> dict[str, object]:
    """A normalizer that puts `content` between any two characters."""
    return {"type": "Replace", "pattern": {"String": ""}, "content": content}


def cut(name: str, keep: float):
    return lambda folder: (folder / name).write_bytes(
        (folder / name).read_bytes()[: int(keep * (folder / name).stat().st_size)]
    )


HUGE_HEADER = struct.pack("<Q", 2**40) + b"{}"
DECLARED = json.dumps({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
MODELS = {
    "pickled weights": pickled,
    "code of its own": own_code,
    "no config": lambda folder: (folder / "config.json").unlink(),
    "config no JSON": write("config.json", b"{"),
    "config a list": write("config.json", b"[]"),
    "config deep": write("config.json", b"[" * 100_000),
    "config not UTF-8": write("config.json", b"\xff\xfe\x00"),
    "config of another size": edit_json("config.json", hidden_size=48),
    "config with negative layers": edit_json("config.json", num_attention_heads=0),
    "config of text": edit_json("config.json", hidden_size="\x1b[2J"),
    "weights cut": cut("model.safetensors", 0.5),
    "weights empty": write("model.safetensors", b""),
    "weights with a huge header": write("model.safetensors", HUGE_HEADER),
    "weights that declare terabytes": write("model.safetensors", struct.pack("<Q", len(DECLARED)) + DECLARED),
    "weights that are a pickle": write("model.safetensors", pickle.dumps([1])),
    "200,000 layers": edit_json("config.json", num_hidden_layers=200_000),
    "200,000 layers, as another table says": edit_json("config.json", text_config={"num_hidden_layers": 200_000}),
    "a billion labels": edit_json("config.json", num_labels=10**9),
    "a vocabulary of a billion": edit_json("config.json", vocab_size=10**9, tie_word_embeddings=False),
    "layers wider than memory": edit_json("config.json", intermediate_size=10**9),
    "more layers than the weights have": edit_json("config.json", num_hidden_layers=4),
    "code of the hub": edit_json("config.json", attn_implementation="a-stranger/flash"),
    "code of the hub, for experts": edit_json("config.json", _experts_implementation="a-stranger/experts"),
    "an index that names files elsewhere": write(
        "model.safetensors.index.json", b'{"weight_map": {"a": "../../elsewhere.safetensors"}}'
    ),
    "an index that names a pickle": write("model.safetensors.index.json", b'{"weight_map": {"a": "model.bin"}}'),
    "weights of another name": edit_json("config.json", transformers_weights="../other.safetensors"),
    "config a pipe": pipe("config.json"),
    "weights a pipe": pipe("model.safetensors"),
    "tokenizer a pipe": pipe("tokenizer.json"),
    "tokenizer's config a pipe": pipe("tokenizer_config.json"),
    "template a pipe": pipe("chat_template.jinja"),
    "generation's config a device": device("generation_config.json"),
    "tokenizer a device": device("tokenizer.json"),
    "tokenizer that multiplies": edit_json(
        "tokenizer.json", normalizer={"type": "Sequence", "normalizers": [multiply("a" * 50)] * 10}
    ),
    "tokenizer that pads": edit_json(
        "tokenizer.json",
        padding={
            "strategy": {"Fixed": 10**12},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "x",
        },
    ),
    "tokenizer that repeats": edit_json(
        "tokenizer.json",
        post_processor={
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 2000,
            "pair": [],
            "special_tokens": {},
        },
    ),
    "tokenizer no JSON": write("tokenizer.json", b"{"),
    "tokenizer empty": write("tokenizer.json", b""),
    "tokenizer a list": write("tokenizer.json", b"[]"),
    "tokenizer deep": write("tokenizer.json", b"[" * 100_000),
    "tokenizer not UTF-8": write("tokenizer.json", b'{"version": "\xff"}'),
    "tokenizer without a model": edit_json("tokenizer.json", model=None),
    "tokenizer of an unknown model": edit_json("tokenizer.json", model={"type": "\x1b]0;x\x07"}),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_folder_that_cannot_be_used_is_one_line(name: str, toy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(toy, folder)
    MODELS[name](folder)
    with pytest.raises(SftscopeError) as error:
        load_llm(settings(folder))
    assert str(folder) in str(error.value)
    assert str(error.value).isprintable()
    assert not (tmp_path / "ran").exists()


def put(data: bytes, position: int, form: str, value: int) -> bytes:
    packed = struct.pack(form, value)
    return data[:position] + packed + data[position + len(packed) :]


GGUFS = {
    "empty": lambda data: b"",
    "magic only": lambda data: b"GGUF",
    "another magic": lambda data: b"GGML" + data[4:],
    "version 99": lambda data: put(data, 4, "<I", 99),
    "2^60 tensors": lambda data: put(data, 8, "<Q", 2**60),
    "2^60 settings": lambda data: put(data, 16, "<Q", 2**60),
    "a name of 2^62 bytes": lambda data: put(data, 24, "<Q", 2**62),
    "a name of 10^4 bytes": lambda data: put(data, 24, "<Q", 10_000),
    "cut in the settings": lambda data: data[:90],
    "cut in the tensors": lambda data: data[:-40],
    "text": lambda data: b"GGUF" + b"hello" * 1000,
    "strings without end": lambda data: put(data, data.index(b"tokens") + 6 + 8, "<Q", 2**50),
    "an unknown tensor type": lambda data: put(data, data.index(b"blk.0.weight") + 12 + 4 + 16, "<I", 77),
    "no dimensions": lambda data: put(data, data.index(b"blk.0.weight") + 12, "<I", 0),
    "a huge shape": lambda data: put(data, data.index(b"blk.0.weight") + 16, "<Q", 2**63),
    "200,000 layers": lambda data: put(data, data.index(b"block_count") + 11 + 4, "<I", 200_000),
    "an offset beyond": lambda data: put(data, data.index(b"blk.2.weight") + 12 + 4 + 16 + 4, "<Q", 2**50),
}


@pytest.mark.parametrize("name", GGUFS)
def test_a_gguf_file_that_cannot_be_used_is_one_line(name: str, small_gguf: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(GGUFS[name](small_gguf))
    with pytest.raises(SftscopeError, match=r"model\.gguf: damaged GGUF file: .*; get it again") as error:
        check_weights(file)
    assert str(error.value).isprintable()
    with pytest.raises(SftscopeError, match=r"model\.gguf"):
        load_tokenizer(str(file))


def test_a_whole_gguf_file_passes_and_its_mutants_do_or_are_one_line(small_gguf: bytes, tmp_path: Path) -> None:
    """Changed bytes anywhere: nothing but a clear error, whatever the walk meets."""
    file, rng, refused = tmp_path / "model.gguf", np.random.default_rng(5), 0
    file.write_bytes(small_gguf)
    check_weights(file)
    for number in range(400):
        mutant = bytearray(small_gguf)
        for position in rng.integers(0, len(mutant) // 3, 3):
            mutant[position] = int(rng.integers(256))
        file = tmp_path / f"{number}.gguf"
        file.write_bytes(mutant)
        try:
            check_weights(file)
        except SftscopeError:
            refused += 1
    assert refused > 100


def test_a_pipe_is_no_model(tmp_path: Path) -> None:
    for name in ("model.gguf", "model"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(SftscopeError, match=f"{name}: not a regular file"):
            load_tokenizer(str(tmp_path / name))


def test_weights_that_lack_a_tensor_are_never_filled_with_random_numbers(toy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(toy, folder)
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {name: value for name, value in tensors.items() if "1.mlp.up_proj" not in name}, folder / "model.safetensors"
    )
    with pytest.raises(SftscopeError, match=r"its weights lack model\.layers\.1\.mlp\.up_proj\.weight"):
        load_llm(settings(folder))


def test_a_tokenizer_is_tried_once(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(tokenizer_trial, "_PASSED", set())
    monkeypatch.setattr(tokenizer_trial._TRIAL, "ask", lambda *_, **__: asked.append(1))
    load_tokenizer(str(toy))
    load_tokenizer(str(toy))
    assert asked == [1]


@pytest.mark.llm
def test_real_gguf_files_are_whole(smollm2: Path, gemma3: Path) -> None:
    check_weights(smollm2)
    check_weights(gemma3.parent)
