"""`inspect`: what is trained and what is scored, as text and JSON; it needs the tokenizer only."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from run_configs import SENTENCES, write_config
from sftscope.foundation.errors import SftscopeError
from sftscope.inputs.settings import load_settings, resolve_paths
from sftscope.llm.loading import templated_tokenizer
from sftscope.preflight import inspection
from sftscope.preflight.training_cost import count_work
from sftscope.training.data.examples import IGNORED, make_examples
from sftscope.training.data.rows import read_side


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect")
    path = write_config(folder)
    (folder / "toy" / "model.safetensors").unlink()
    return path


def test_the_example_is_the_one_that_training_sees(config):
    found = inspection.inspect(config, row=2).example
    settings = resolve_paths(load_settings(config), config.parent)
    row = read_side(settings.data, "train")[1]
    (example,) = make_examples([row], templated_tokenizer(settings.model), "chat", cutoff=settings.training.cutoff)
    assert [token.id for token in found.tokens] == list(example.input_ids)
    assert [token.trained for token in found.tokens] == [label != IGNORED for label in example.labels]
    assert [token.text for token in found.tokens if token.trained] == ["bad", "<eos>"]
    assert found.where.endswith("rows.jsonl, line 2")
    assert found.ends
    assert not found.prompt_cut


def test_the_probe_has_its_variables_and_target(config):
    probe = inspection.inspect(config, probe="p01").probe
    owned = {}
    for token in probe.tokens:
        owned.setdefault(token.variable, []).append(token.text)
    assert [owned[v] for v in range(4)] == [[word] for word in probe.variables]
    assert all(word in SENTENCES[1] for word in probe.variables)
    assert [target.text for target in probe.targets] == ["bad"]


def test_as_text_trained_tokens_and_variables_are_marked(config):
    found = inspection.inspect(config)
    text = inspection.render(found)
    assert text.index("[sad]") < text.index("[<eos>]")
    assert text.count("[<eos>]") == 1
    assert all(f"[{v} {word}]" in text for v, word in enumerate(found.probe.variables))
    assert "target: sad (id" in text
    assert "warning" not in text


def test_collisions_cut_answers_and_long_rows_are_told(config):
    found = inspection.inspect(config)
    example = replace(found.example, prompt_cut=3, ends=False, tokens=found.example.tokens * 200)
    text = inspection.render(replace(found, collisions={"very": ["very bad", "very sad"]}, example=example))
    assert "very bad = very sad" in text
    assert "the user's text is cut by 3 tokens at its end" in text
    assert "its end is cut off" in text
    assert "tokens … " in text
    assert max(map(len, text.splitlines())) < 300


@pytest.mark.parametrize("cutoff", [8, 12, 17, 18, 19, 64])
def test_rows_that_the_cutoff_cuts_are_counted_over_all_of_them(config, cutoff):
    """Short, long and very long prompts and answers, against what training makes of each."""
    folder = config.parent
    texts = [("how", "good"), ("how " * 9, "bad"), ("how " * 60, "good " * 2), ("how", "bad " * 40), ("", "good " * 3)]
    rows = [{"instruction": f"feel {prompt}", "output": answer} for prompt, answer in texts]
    (folder / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "long.toml"
    text = config.read_text().replace('train = "rows.jsonl"', 'train = "long.jsonl"')
    path.write_text(text.replace("[training]", f"[training]\ncutoff = {cutoff}"))
    each = [inspection.inspect(path, row=number + 1) for number in range(len(rows))]
    prompts = sum(found.example.prompt_cut > 0 for found in each)
    answers = sum(not found.example.ends for found in each)
    assert each[0].cut == inspection.Cut(cutoff, prompts, answers)
    said = inspection.render(each[0])
    assert (f"cutoff = {cutoff} shortens the user's text at its end in {prompts} of 5 rows" in said) == (prompts > 0)
    assert (f"shortens the answer at its end in {answers} of 5 rows" in said) == (answers > 0)
    assert prompts or cutoff == 64


def test_hostile_text_is_shown_safely_and_json_holds_it_whole(config):
    folder = config.parent
    hostile = "\x1b[2J\u202e[bold]x"
    (folder / "hostile.jsonl").write_text(json.dumps({"instruction": hostile, "output": hostile}))
    probe = {"id": hostile, "instruction": hostile + " a b c d", "response": "sad " + hostile}
    (folder / "hostile_probes.jsonl").write_text(json.dumps(probe))
    path = folder / "hostile.toml"
    text = config.read_text().replace('train = "rows.jsonl"', 'train = "hostile.jsonl"')
    path.write_text(text.replace('"probes.jsonl"', '"hostile_probes.jsonl"'))
    found = inspection.inspect(path)
    assert all(line.isprintable() for line in inspection.render(found).splitlines())
    assert found.probe.id == hostile


@pytest.mark.parametrize(
    ("choice", "message"), [({"row": 13}, "expected 1…12"), ({"probe": "x"}, "there are p00, p01, p02")]
)
def test_a_row_or_probe_that_is_not_there_is_one_line(config, choice, message):
    with pytest.raises(SftscopeError, match=message):
        inspection.inspect(config, **choice)


def test_the_command_prints_text_or_json(config):
    code = [
        sys.executable,
        "-c",
        "from sftscope_tui.cli import main; main()",
        "inspect",
        str(config),
        "--row",
        "3",
        "--json",
    ]
    found = json.loads(subprocess.run(code, capture_output=True, text=True, check=True).stdout)
    assert (found["schema"], found["version"], found["example"]["row"]) == ("sftscope-inspect", 1, 3)


def test_plan_says_of_the_training_rows_what_inspect_says(config):
    folder = config.parent
    rows = [{"instruction": "feel " + "how " * n, "output": f"good {n} !!!"} for n in (1, 40)]
    rows.append({"instruction": "how <eos> feel", "output": "bad !!!"})
    (folder / "odd.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "odd.toml"
    text = config.read_text().replace('train = "rows.jsonl"', 'train = "odd.jsonl"')
    path.write_text(text.replace("[training]", "[training]\ncutoff = 24"))
    settings = resolve_paths(load_settings(path), folder)
    remarks = count_work(settings, templated_tokenizer(settings.model), "chat").remarks
    assert [line.partition(" (")[0] for line in remarks] == [
        "[training] cutoff = 24 shortens the user's text at its end in 1 of 3 rows",
        "1 of 3 rows have control tokens in their text",
        "all 3 answers end in '!!!': it is trained as text; if another tool left it there, remove it from the data",
    ]
    found = inspection.inspect(path)
    assert all(f"warning: {line}\n" in inspection.render(found) for line in remarks)
    assert (found.markers.control_rows, found.markers.shared_end) == (1, "!!!")


def test_with_words_by_influence_it_shows_how_far_they_move_v(tmp_path):
    found = inspection.inspect(write_config(tmp_path), sets=["probes.choice=influence"])
    (moved,) = found.probe.influence["moved"]
    assert moved["weights"] == "base"
    assert f"influence: these 4 words move v by {moved['words']:.1f} " in inspection.render(found)
    assert inspection.inspect(tmp_path / "config.toml").probe.influence is None
