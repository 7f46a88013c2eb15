"""`--set TABLE.FIELD=VALUE`: what is taken, where its paths start, and the line on what is refused."""

from pathlib import Path

import pytest

from sftscope.foundation.errors import SftscopeError
from sftscope.inputs.settings import RunSettings, load_settings, resolve_paths

CONFIG = """[model]
path = "owner/model"
[data]
train = "train.jsonl"
[probes]
file = "probes.jsonl"
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config in one folder, while another, `here`, is the working directory."""
    for folder in ("there", "here"):
        (tmp_path / folder).mkdir()
        for name in ("train.jsonl", "probes.jsonl"):
            (tmp_path / folder / name).touch()
    monkeypatch.chdir(tmp_path / "here")
    path = tmp_path / "there" / "run.toml"
    path.write_text(CONFIG)
    return path


def with_sets(config: Path, *sets: str) -> RunSettings:
    return load_settings(config, sets)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("training.max_steps=4", 4),
        ("training.epochs=3", 3.0),
        ("training.learning_rate=1e-3", 0.001),
        ("training.use_dora=true", True),
        ("training.checkpoints=[0, 4]", (0, 4)),
        ("training.schedule=linear", "linear"),
        ('training.schedule="linear"', "linear"),
        (" training . schedule =linear", "linear"),
        ("model.system=Be brief = be kind.", "Be brief = be kind."),
        ("model.system=1\nother = 2", "1\nother = 2"),
        ('model.system="4"', "4"),
        ("model.system=", ""),
        ("model.path=google/gemma-3-4b-it", "google/gemma-3-4b-it"),
    ],
)
def test_a_value_is_toml_and_anything_else_is_text(config: Path, text: str, value: object) -> None:
    table, name = (part.strip() for part in text.partition("=")[0].split("."))
    assert getattr(getattr(with_sets(config, text), table), name) == value


def test_the_last_one_counts_and_the_rest_of_the_config_stays(config: Path) -> None:
    settings = with_sets(config, "training.max_steps=4", "training.max_steps=8")
    assert settings.changed()["training"] == {"max_steps": 8}
    assert settings.model == load_settings(config).model


def test_a_path_starts_at_the_working_directory_and_that_of_the_config_at_its_folder(config: Path) -> None:
    resolved = resolve_paths(with_sets(config, "data.train=train.jsonl"), config.parent)
    assert Path(resolved.data.train) == Path("train.jsonl").resolve()
    assert Path(resolved.probes.file) == config.parent / "probes.jsonl"


def test_with_dataset_info_data_are_names_in_it(config: Path) -> None:
    Path("info.json").write_text("{}")
    settings = with_sets(config, "data.train=mine", "data.dataset_info=info.json")
    assert (settings.data.train, settings.data.dataset_info) == ("mine", str(Path("info.json").resolve()))


def test_what_the_config_lacks_can_be_set(config: Path) -> None:
    config.write_text('[model]\npath = ""\n[data]\ntrain = "train.jsonl"\n')
    settings = with_sets(config, "model.path=owner/other", "probes.file=probes.jsonl")
    assert settings.model.path == "owner/other"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training.max_steps=x", "--set training.max_steps: expected a whole number, at least 0, got 'x'"),
        ("training.max_steps=", "--set training.max_steps: expected a whole number, at least 0, got ''"),
        ("training.max_steps=-1", "--set training.max_steps: expected a whole number, at least 0, got -1"),
        ("training.max_steps=true", "--set training.max_steps: expected a whole number, at least 0, got True"),
        ("training.learning_rate=nan", "--set training.learning_rate: expected a finite number, more than 0, got nan"),
        ("training.checkpoints=[0", "--set training.checkpoints: expected a list, such as [0, 1, 2]"),
        (f"training.checkpoints={'[' * 5000}", "--set training.checkpoints: expected a list"),
        (f"training.seed={'1' * 5000}", "--set training.seed: expected a whole number"),
        ("training.schedule=step", "--set training.schedule: expected one of cosine, linear, constant, got 'step'"),
        ("model.path=7", "--set model.path: expected a path or a hub name, in quotes, got 7"),
        ("model.path=", "--set model.path: expected hub name, local folder, or GGUF file of the base LLM, got nothing"),
        ("model.system=\udcff", "--set model.system: expected text in UTF-8"),
        ("training.max_step=4", "unknown field 'max_step' in [training]; did you mean 'max_steps'?"),
        ("trainin.max_steps=4", "unknown table [trainin]; did you mean 'training'?"),
        ("max_steps=4", "--set max_steps=4: expected TABLE.FIELD=VALUE, such as training.max_steps=…"),
        ("training.max_steps", "--set training.max_steps: expected TABLE.FIELD=VALUE"),
        ("", "--set : expected TABLE.FIELD=VALUE"),
        ("data.train=gone.jsonl", "does not exist; paths are relative to the working directory"),
        ("data.labels=$NOT_SET_HERE/x", "--set data.labels: environment variable NOT_SET_HERE is not set"),
        ("training.micro_batch_size=7", "--set training.micro_batch_size: micro_batch_size 7 does not divide"),
        ("training.patience=2", "--set training.patience: patience needs [data] eval"),
    ],
)
def test_what_is_refused_is_one_safe_line_that_names_the_option(config: Path, text: str, message: str) -> None:
    with pytest.raises(SftscopeError) as error:
        with_sets(config, text)
    assert message in str(error.value)
    assert str(error.value).startswith("--set ")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 600


def test_a_fault_of_the_config_keeps_its_place(config: Path) -> None:
    config.write_text(CONFIG + "[training]\nepochs = 0\n")
    with pytest.raises(SftscopeError, match=r"run\.toml, line 8: \[training\] epochs: expected"):
        with_sets(config, "training.max_steps=4")
    config.write_text("training = 3\n" + CONFIG)
    with pytest.raises(SftscopeError, match=r"expected a table \[training\], got 3"):
        with_sets(config, "training.max_steps=4")
