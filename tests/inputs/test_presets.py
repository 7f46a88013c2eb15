"""Every preset, on a tiny random model of the same architecture and tokenizer kind and on rows of the same schema."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from model_kinds import save_kind
from sftscope.analysis.run.read_run import load_history
from sftscope.cli.commands import app
from sftscope.foundation.errors import SftscopeError
from sftscope.inputs.presets import FOLDER, find_config, preset_names, preset_text
from sftscope.inputs.settings import load_settings, settings_from_tables
from sftscope.llm.loading import load_llm
from sftscope.llm.weights.adapters import linear_modules
from sftscope.preflight import inspection
from sftscope.runs import pipeline

MODELS = {
    "Qwen/Qwen2.5-3B-Instruct": "qwen2.5",
    "Qwen/Qwen2.5-7B-Instruct": "qwen2.5",
    "meta-llama/Llama-2-7b-chat-hf": "llama-2",
    "meta-llama/Meta-Llama-3-8B-Instruct": "llama-3",
    "google/gemma-3-4b-it": "gemma-3",
}
DATA = {"goemotions": "google-research-datasets/go_emotions", "dolly": "databricks/databricks-dolly-15k"}
RUN = ("qwen2.5-3b-goemotions", "llama-2-7b-unilaw", "llama-3-8b-goemotions", "gemma-3-4b-dolly")


def rows_like(data: str) -> list[dict]:
    """Forty rows in the schema of a data set."""
    if data == "goemotions":
        return [{"text": f"so good {i}", "labels": [i % 28], "id": f"id{i}"} for i in range(40)]
    if data == "dolly":
        row = {"context": "", "response": "The answer is no.", "category": "open_qa"}
        return [{"instruction": f"Why is {i}?", **row} for i in range(40)]
    answer = "<think>\n甲与乙订立合同。\n</think>\n正确的是 A"
    return [{"instruction": f"下列关于合同的说法，正确的是：{i}", "input": "", "output": answer} for i in range(40)]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A folder with a model for each of MODELS and a data set for each of DATA, laid out as on the hub."""
    folder = tmp_path_factory.mktemp("hub")
    for kind in set(MODELS.values()):
        save_kind(folder / kind, kind)
    for name in DATA:
        part = "simplified" if name == "goemotions" else ""
        (folder / name / part).mkdir(parents=True)
        for split in ("train", "validation") if part else ("train",):
            table = pyarrow.Table.from_pylist(rows_like(name))
            parquet.write_table(table, folder / name / part / f"{split}-00000-of-00001.parquet")
    pattern = [{"split": split, "path": f"simplified/{split}-*"} for split in ("train", "validation")]
    card = json.dumps({"configs": [{"config_name": "simplified", "data_files": pattern}]})
    (folder / "goemotions" / "README.md").write_text(f"---\n{card}\n---\n")
    (folder / "unilaw").mkdir()
    rows = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows_like("unilaw"))
    (folder / "unilaw" / "sft.jsonl").write_text(rows)
    return folder


@pytest.fixture
def stand_in(hub, monkeypatch):
    """`stand_in(name)`: a preset, and as `--set` stand-ins for its model and data, and little to do."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", hub / "cache")
    monkeypatch.setenv("UNILAW_R1_DATA", str(hub / "unilaw"))

    def made(name: str) -> tuple[Path, list[str]]:
        config = find_config(Path(name))
        tables = tomllib.loads(preset_text(config))
        sets = [
            f"model.path={hub / MODELS[tables['model']['path']]}",
            "probes.n_words=4",
            "training.effective_batch_size=4",
            "training.max_steps=2",
            "training.learning_rate=1e-2",
            "training.checkpoints=[0, 2]",
            "training.loss_rows=4",
        ]
        data = name.rpartition("-")[2]
        sides = ("train", "eval") if data in DATA else ()
        assert all(tables["data"][side] == DATA[data] for side in sides)
        return config, [*sets, *(f"data.{side}={hub / data}" for side in sides)]

    return made


def test_there_is_a_preset_for_every_model_and_data_set_of_the_paper():
    models = ("gemma-3-4b", "llama-2-7b", "llama-3-8b", "qwen2.5-3b", "qwen2.5-7b")
    assert preset_names() == tuple(f"{model}-{data}" for model in models for data in ("dolly", "goemotions", "unilaw"))


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_trains_answers_and_masks_the_words_of_every_probe(stand_in, hub, name):
    config, sets = stand_in(name)
    settings = load_settings(config, sets)
    assert (settings.training.epochs, settings.training.cutoff, settings.model.dtype) == (30.0, 8192, "bfloat16")
    for probe in [
        row["id"] for row in map(json.loads, (config.parent / settings.probes.file).read_text().splitlines())
    ]:
        found = inspection.inspect(config, sets=sets, probe=probe)
        owned = {token.variable for token in found.probe.tokens} - {None}
        assert owned == set(range(len(found.probe.variables)))
        target = found.probe.targets[0].text.strip()
        assert target
        assert found.probe.response.startswith(target.removesuffix("\ufffd"))  # or the first byte of a character
    trained = "".join(token.text for token in found.example.tokens if token.trained)
    answer = {"goemotions": "admiration", "dolly": "The answer is no."}.get(name.rpartition("-")[2], "<think>")
    assert trained.replace(" ", "").startswith(answer.replace(" ", ""))
    assert found.rows == (40 if name.endswith("goemotions") else 38)


@pytest.mark.parametrize("name", RUN)
def test_a_preset_runs(stand_in, tmp_path, name):
    config, sets = stand_in(name)
    pipeline.run(config, tmp_path / "run", sets=sets)
    assert pipeline.open_run(tmp_path / "run")[1].read_run()["name"] == name
    history = load_history(tmp_path / "run")
    assert history.steps.tolist() == [0, 2]
    assert np.isfinite(history.losses["eval"]).all()
    assert max(probe.noise.max() for probe in history.probes) < 1e-3
    assert all(np.ptp(probe.output) > 0 for probe in history.probes)


def test_every_linear_layer_of_the_text_model_gets_an_adapter(hub):
    from sftscope.inputs.settings import ModelSettings

    model = load_llm(ModelSettings(path=str(hub / "gemma-3"), device="cpu")).model
    assert len(linear_modules(model)) == 2 * 7


def test_a_preset_is_named_where_a_config_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(Path("qwen2.5-3b-dolly")) == FOLDER / "qwen2.5-3b-dolly.toml"
    Path("qwen2.5-3b-dolly").touch()
    assert find_config(Path("qwen2.5-3b-dolly")) == Path("qwen2.5-3b-dolly")  # a file goes first
    assert find_config(Path("x/qwen2.5-7b-dolly")) == Path("x/qwen2.5-7b-dolly")
    with pytest.raises(SftscopeError, match="no preset of that name; presets are gemma-3-4b-dolly, "):
        find_config(Path("qwen"))


@pytest.mark.parametrize("name", preset_names())
def test_the_parts_of_a_preset_are_the_config_that_it_was_as_one_file(name, tmp_path, monkeypatch):
    before = json.loads(Path(__file__).with_name("presets_before.json").read_text())[name]
    config = find_config(Path(name))
    assert tomllib.loads(preset_text(config)) == before
    monkeypatch.setenv("UNILAW_R1_DATA", str(tmp_path))
    assert load_settings(config) == settings_from_tables(before)


def test_help_names_every_part_of_the_presets():
    shown = " ".join(CliRunner().invoke(app, ["run", "--help"], terminal_width=300).output.split())
    for part in {half for name in preset_names() for half in name.rsplit("-", 1)}:
        assert part in shown


def test_the_data_that_the_hub_lacks_are_asked_for(monkeypatch):
    monkeypatch.delenv("UNILAW_R1_DATA", raising=False)
    result = CliRunner().invoke(app, ["inspect", "qwen2.5-3b-unilaw"])
    assert "environment variable UNILAW_R1_DATA is not set; set it to a folder" in str(result.exception)
