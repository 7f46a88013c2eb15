"""`sftscope config` and `sftscope init`: every setting is there, and what they print is a config."""

import json
import re
import tomllib

import pytest

from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_lines
from sftscope.inputs.presets import FOLDER, preset_names, preset_text
from sftscope.inputs.setting_rules import settings_of
from sftscope.inputs.setting_texts import as_list, json_schema, new_config
from sftscope.inputs.settings import RunSettings, load_settings, settings_from_tables

SETTINGS = [setting for table in settings_of(RunSettings).values() for setting in table.values()]
NEEDED = {"model": "owner/model", "train": "owner/data", "probes": str(FOLDER / "dolly-probes.jsonl")}
NOTHING = {"model": "", "train": "", "eval": "", "probes": ""}


def with_defaults_on(text: str) -> str:
    """A config of `init` in which every default is in force."""
    return re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE)


def test_the_list_has_every_setting_with_default_rule_and_help_in_80_columns():
    text = as_list()
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    for setting in SETTINGS:
        assert f" {setting.table}.{setting.name} " in flat
        assert f"{setting.allowed} {setting.help}" in flat
    assert "training.max_steps default 0; a whole number, at least 0 stop after this many steps" in flat
    assert "model.path to be given; a path or a hub name" in flat


def test_the_json_schema_has_every_setting_with_its_rules():
    schema = json.loads(json.dumps(json_schema(), allow_nan=False))
    tables = schema["$defs"]["RunSettings"]
    assert (tables["required"], tables["additionalProperties"]) == (["model", "data", "probes"], False)
    for setting in SETTINGS:
        name = type(getattr(settings_from_tables(MINIMAL), setting.table)).__name__
        assert schema["$defs"][name]["properties"][setting.name]["description"] == setting.help
        assert schema["$defs"][name]["additionalProperties"] is False
    training = schema["$defs"]["TrainingSettings"]["properties"]
    assert training["max_steps"] == {
        "description": "stop after this many steps; the schedule keeps its length; 0: all",
        "type": "integer",
        "minimum": 0,
        "default": 0,
    }
    assert set(training["schedule"]["enum"]) == {"cosine", "linear", "constant"}


MINIMAL = {"model": {"path": "m"}, "data": {"train": "t"}, "probes": {"file": "p"}}


def test_a_new_config_says_what_is_to_be_filled_in(tmp_path):
    text = new_config("", **NOTHING)
    assert [line for line in text.splitlines() if "fill in" in line] == [
        'path = ""  # fill in',
        'train = ""  # fill in',
        'file = ""  # fill in',
    ]
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(SftscopeError, match=r"run\.toml, line 7: \[model\] path: expected hub name.*got nothing"):
        load_settings(path)


def test_a_new_config_is_what_was_given_and_defaults(tmp_path):
    path = tmp_path / "run.toml"
    text = new_config("", **{**NOTHING, **NEEDED, "eval": "owner/other"})
    path.write_text(text)
    settings = load_settings(path)
    assert settings.changed() == {
        "model": {"path": NEEDED["model"]},
        "data": {"train": NEEDED["train"], "eval": "owner/other"},
        "probes": {"file": NEEDED["probes"]},
        "training": {},
        "extraction": {},
    }
    assert with_defaults_on(text) != text
    tables = tomllib.loads(with_defaults_on(text))
    assert settings_from_tables(tables) == settings
    assert [(table, name) for table, values in tables.items() for name in values] == [
        (setting.table, setting.name) for setting in SETTINGS
    ]


@pytest.mark.parametrize("name", preset_names())
def test_a_new_config_from_a_preset_is_that_preset(name, tmp_path, monkeypatch):
    monkeypatch.setenv("UNILAW_R1_DATA", str(tmp_path))
    path = tmp_path / "run.toml"
    path.write_text(new_config(name, **NOTHING))
    expected = tomllib.loads(preset_text(FOLDER / f"{name}.toml"))
    for table, key in (("data", "labels"), ("probes", "file")):
        if file := expected[table].get(key):
            expected[table][key] = str((FOLDER / file).resolve())
    assert load_settings(path) == settings_from_tables(expected)
    assert settings_from_tables(tomllib.loads(with_defaults_on(path.read_text()))) == settings_from_tables(expected)


def test_own_rows_replace_all_data_of_a_preset():
    tables = tomllib.loads(new_config("gemma-3-4b-dolly", **{**NOTHING, "train": "mine.jsonl", "model": "./gemma"}))
    assert tables["data"] == {"train": "mine.jsonl"}
    assert tables["model"] == {"path": "./gemma", "dtype": "bfloat16"}


@pytest.mark.parametrize(
    "value", ['a "quoted" \\ name', "tab\tnewline\n", "\x7f\x1b", "\U0001f600 甲", "a\u202eb\u200d\ue000 e\u0301"]
)
def test_any_name_survives_the_round_trip(value):
    shown = safe_lines(new_config("", **{**NOTHING, "train": value}))
    assert tomllib.loads(shown)["data"]["train"] == value


def test_what_is_no_preset_and_no_text_is_refused():
    with pytest.raises(SftscopeError, match="no preset of that name; presets are gemma-3-4b-dolly, "):
        new_config("gemma", **NOTHING)
    with pytest.raises(SftscopeError, match="--train: expected text in UTF-8"):
        new_config("", **{**NOTHING, "train": "\udcff"})
