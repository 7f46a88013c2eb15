"""Settings: what a config file may say, and the one line that names what it may not."""

import tomllib
from pathlib import Path

import pytest

from sftscope.foundation.errors import SftscopeError
from sftscope.inputs.setting_paths import is_hub_name
from sftscope.inputs.setting_rules import Setting, settings_of
from sftscope.inputs.settings import (
    DEFAULT_CHECKPOINTS,
    RunSettings,
    TrainingSettings,
    load_settings,
    resolve_paths,
    settings_from_tables,
)
from sftscope.runs.identity import identity_of

SAMPLE_RUNS = Path(__file__).parents[2] / "sample_runs"
SETTINGS = [setting for table in settings_of(RunSettings).values() for setting in table.values()]
MINIMAL = """[model]
path = "owner/model"
[data]
train = "train.jsonl"
[probes]
file = "probes.jsonl"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.jsonl").touch()
    (tmp_path / "probes.jsonl").touch()
    return tmp_path


def load(folder: Path, text: str) -> RunSettings:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path)


def test_minimal_config_takes_defaults_and_keeps_paths_as_written(folder: Path) -> None:
    loaded = load(folder, MINIMAL)
    assert loaded.training.checkpoints == DEFAULT_CHECKPOINTS
    assert loaded.model.path == "owner/model"
    assert loaded.data.train == "train.jsonl"
    assert settings_from_tables(loaded.as_dict()) == loaded


def test_resolved_paths_are_absolute_and_a_hub_name_stays(folder: Path) -> None:
    resolved = resolve_paths(load(folder, MINIMAL), folder)
    assert Path(resolved.data.train) == (folder / "train.jsonl").resolve()
    assert resolved.model.path == "owner/model"
    assert resolved.data.eval == ""


def test_data_are_a_file_a_folder_a_hub_name_or_a_name_in_dataset_info(folder: Path) -> None:
    (folder / "dataset_info.json").write_text("{}")
    for given, expected in (
        ('train = "train.jsonl"', str((folder / "train.jsonl").resolve())),
        ('train = "."', str(folder.resolve())),
        ('train = "owner/data"', "owner/data"),
        ('dataset_info = "dataset_info.json"\ntrain = "train.jsonl"', "train.jsonl"),
    ):
        loaded = load(folder, MINIMAL.replace('train = "train.jsonl"', given))
        assert resolve_paths(loaded, folder).data.train == expected


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: f"{setting.table}.{setting.name}")
def test_every_setting_has_one_line_of_help_and_a_default_that_passes(setting: Setting) -> None:
    assert setting.help
    assert "\n" not in setting.help
    if setting.default is not None:
        setting.check(list(setting.default) if isinstance(setting.default, tuple) else setting.default, "default")


@pytest.mark.parametrize(
    "run",
    sorted([*SAMPLE_RUNS.glob("*/run.toml"), *Path(__file__).parent.glob("golden/*/run/run.toml")]),
    ids=lambda run: run.parent.name,
)
def test_runs_of_before_keep_their_identity(run: Path) -> None:
    content = tomllib.loads(run.read_text())
    settings = settings_from_tables(content["settings"])
    assert identity_of(settings, content["hashes"]) == content["identity"]
    kept = settings.as_dict()
    for table, values in content["settings"].items():
        assert {key: kept[table][key] for key in values} == values


def test_settings_are_frozen_and_take_nothing_unknown() -> None:
    with pytest.raises(AttributeError):
        TrainingSettings().epochs = 3.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        TrainingSettings(epoch=3)  # type: ignore[call-arg]


def test_whole_numbers_are_taken_for_floats(folder: Path) -> None:
    loaded = load(folder, MINIMAL + "[training]\nepochs = 3\n")
    assert loaded.training.epochs == 3.0
    assert isinstance(loaded.training.epochs, float)


@pytest.mark.parametrize(
    ("extra", "line", "message"),
    [
        ("[training]\n\nlearning_rat = 1e-4", 9, "did you mean 'learning_rate'"),
        ("[trainin]\nepochs = 1", 7, "did you mean 'training'"),
        ('[training]\nepochs = "3"', 8, "expected a finite number, more than 0, got '3'"),
        ("[training]\nepochs = true", 8, "expected a finite number, more than 0, got True"),
        ("[training]\nlora_rank = 8.5", 8, "expected a whole number, at least 1, got 8.5"),
        ("[training]\nlora_rank = 8.0", 8, "expected a whole number"),
        ("[training]\nlora_rank = true", 8, "expected a whole number"),
        ("[training]\nweight_decay = inf", 8, "finite"),
        ("[training]\nwarmup_ratio = nan", 8, "finite"),
        ("[training]\nschedule = 1", 8, "one of cosine, linear, constant, got 1"),
        (
            "[extraction]\ntarget = 2026-01-01",
            8,
            "auto, first, word, first-k:<number>, all, span:<text> or token:<text>, got '2026-01-01'",
        ),
        ('[extraction]\ntarget = "first\\n"', 8, "all, span:<text> or token:<text>"),
        ("[training]\ncheckpoints = [0, true]", 8, "each entry a whole number, at least 0, got True"),
        ("[training]\ncheckpoints = [0, [1]]", 8, r"each entry a whole number, at least 0, got \[1\]"),
        ("[training]\ngradient_checkpointing = 1", 8, "expected true or false"),
        ("[training]\nepochs = 0", 8, "more than 0"),
        ("[training]\nepochs = inf", 8, "finite"),
        ("[training]\nlearning_rate = nan", 8, "finite"),
        ("[training]\nseed = 4294967296", 8, "at most 4294967295"),
        ("[training]\nwarmup_ratio = 1.5", 8, "at most 0.99"),
        ("[training]\nlora_rank = 0", 8, "at least 1"),
        ('[training]\nschedule = "step"', 8, "one of cosine, linear, constant"),
        ("[training]\ncheckpoints = 8", 8, "expected a list"),
        ("[training]\ncheckpoints = [0, -1]", 8, "at least 0"),
        ("[training]\nmicro_batch_size = 7", 8, "does not divide"),
        ("[extraction]\nzeta = 0.9", 8, "at most 0.5"),
        ('[extraction]\nbaseline_vector = "median"', 8, "expected mean, zero or token:<text>"),
        (
            '[extraction]\ntarget = "last"',
            8,
            "expected auto, first, word, first-k:<number>, all, span:<text> or token:<text>",
        ),
        ('[extraction]\nbaseline_vector = "token:"', 8, "expected mean, zero or token:<text>"),
    ],
)
def test_a_bad_setting_is_named_with_file_and_line(folder: Path, extra: str, line: int, message: str) -> None:
    with pytest.raises(SftscopeError, match=message) as error:
        load(folder, MINIMAL + extra + "\n")
    assert f"{folder / 'config.toml'}, line {line}" in str(error.value)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[data]\ntrain = "train.jsonl"', r"\[model\] needs path"),
        ("model = 3", r"expected a table \[model\]"),
        (MINIMAL.replace("owner/model", ""), "got nothing"),
        (MINIMAL.replace("owner/model", "../missing"), "does not exist"),
        (MINIMAL.replace("owner/model", "~no-such-user-here/x"), "not a usable path"),
        (MINIMAL.replace("owner/model", "a\\u0000b"), "does not exist"),
        (MINIMAL.replace("owner/model", "m" * 5000), "not a usable path"),
        (MINIMAL.replace("owner/model", "$SFTSCOPE_NOT_SET/x"), "SFTSCOPE_NOT_SET is not set"),
        (MINIMAL.replace("train.jsonl", "missing.jsonl"), r"\[data\] train: .*does not exist"),
        (MINIMAL.replace("probes.jsonl", "."), "is a folder"),
        ('[model]\npath = "a"\npath = "b"', "not valid TOML"),
        ("a = " + "[" * 5000, "not valid TOML"),
        ("a = " + "1" * 5000, "not valid TOML"),
        (f"{MINIMAL}[training]\nlearning_rate = 1{'0' * 400}", "a whole number of more than 64 bits"),
        (MINIMAL + '[model2."\\u001b[2J"]', "unknown table"),
        (MINIMAL + '["\\u001b[2J"]', "unknown table"),
        (MINIMAL + '[extraction]\n"\\u001b[2J" = 1', "unknown field"),
        (MINIMAL.replace('"owner/model"', '"owner/model"\ndevice = "gpu0"'), "auto, cpu, cuda or cuda:N"),
    ],
)
def test_a_bad_file_is_one_safe_line(folder: Path, text: str, message: str) -> None:
    with pytest.raises(SftscopeError, match=message) as error:
        load(folder, text)
    assert str(error.value).isprintable()


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SftscopeError, match="no such config file"):
        load_settings(tmp_path / "none.toml")
    with pytest.raises(SftscopeError, match="cannot be read"):
        load_settings(tmp_path)
    path = tmp_path / "latin.toml"
    path.write_bytes(b"[model]\npath = '\xe9'\n")
    with pytest.raises(SftscopeError, match="line 2: not valid UTF-8"):
        load_settings(path)


def test_a_byte_order_mark_is_no_error(folder: Path) -> None:
    assert load(folder, "\ufeff" + MINIMAL).model.path == "owner/model"


@pytest.mark.parametrize(
    ("name", "is_name"),
    [
        ("owner/model-1.5", True),
        ("gpt2", True),
        ("../x", False),
        ("/abs", False),
        ("a/b/c", False),
        ("m.gguf", False),
    ],
)
def test_hub_names(name: str, is_name: bool) -> None:
    assert is_hub_name(name) is is_name
