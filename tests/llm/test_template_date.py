"""A template that writes the date writes one date in all of a run; whoever scored another prompt is noticed."""

import os
import shutil
from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from run_configs import write_config
from sftscope.analysis.run.read_run import load_history
from sftscope.foundation.errors import SftscopeError
from sftscope.inputs.settings import load_settings, resolve_paths
from sftscope.llm.loading import templated_tokenizer
from sftscope.llm.prompting import template_date
from sftscope.llm.prompting.prompts import tokenize_prompt
from sftscope.llm.prompting.template_date import freeze_date
from sftscope.llm.prompting.template_sandbox import render
from sftscope.runs import pipeline
from sftscope.runs.begin import begin
from sftscope.runs.identity import identity_of, settings_in
from sftscope.store import RunFolder
from sftscope.verification.verify import verify
from toy_llm import CHAT_TEMPLATE, toy_tokenizer

TURNS = [{"role": "user", "content": "a"}]
FIRST, SECOND = "2026-12-01", "2026-12-02"
DATED = "{{ 'abcdefghij'[strftime_now('%d') | int] }} " + CHAT_TEMPLATE  # a letter that the toy knows
ROUTES = {
    "the day": ("{{ strftime_now('%d %b %Y') }}", "01 Dec 2026"),
    "the hour": ("{{ strftime_now('%H:%M:%S') }}", "00:00:00"),
    "seconds since 1970": ("{{ strftime_now('%s') }}", "1796083200"),
    "another name": ("{% set now = strftime_now %}{{ now('%A') }}", "Tuesday"),
    "no clock": ("{{ strftime_now is defined and 'yes' }}", "yes"),
}


@pytest.mark.parametrize("route", ROUTES)
def test_a_template_sees_the_date_of_the_run_by_whatever_route(route):
    template, expected = ROUTES[route]
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = template
    freeze_date(tokenizer, FIRST)
    assert render(tokenizer, TURNS, generate=True) == expected


def test_a_template_without_a_date_of_a_run_writes_today():
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = "{{ strftime_now('%Y-%m-%d') }}"
    assert render(tokenizer, TURNS, generate=True) in (date.today().isoformat(), template_date.today())


def test_what_a_template_draws_at_random_is_the_same_every_time():
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = "{{ range(10 ** 5) | random }} {{ lipsum(1) }}"
    assert render(tokenizer, TURNS, generate=True) == render(tokenizer, TURNS, generate=True)


def test_a_date_that_is_none_is_one_line():
    with pytest.raises(SftscopeError, match=r"\[model\] template_date: expected a date such as .*, got '2026-02-30'"):
        freeze_date(toy_tokenizer(), "2026-02-30")


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run that was begun and trained on the first day, with step 0 extracted; and its config."""
    folder = tmp_path_factory.mktemp("dated")
    config = write_config(
        folder,
        **{
            'path = "toy"': 'path = "toy"\ntemplate_file = "dated.jinja"',
            "epochs = 2": "epochs = 1",
            "checkpoints = [0, 1, 2, 4, 8]": "checkpoints = [0, 3]",
        },
    )
    (folder / "dated.jinja").write_text(DATED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(template_date, "today", lambda: FIRST)
        pipeline.train(config, folder / "run")
        pipeline.extract(folder / "run", steps=[0])
    return config


@pytest.fixture
def copied(begun, tmp_path):
    """The folder of the run and its inputs, which may be changed."""
    return shutil.copytree(begun.parent, tmp_path / "dated")


def test_a_run_that_resumes_on_another_day_scores_and_trains_the_prompts_of_the_first(copied, monkeypatch):
    shutil.copytree(copied / "run", copied / "one_day")
    monkeypatch.setattr(template_date, "today", lambda: FIRST)
    pipeline.extract(copied / "one_day")
    monkeypatch.setattr(template_date, "today", lambda: SECOND)
    settings = pipeline.train(copied / "config.toml", copied / "run")  # its rows too
    rendered = tokenize_prompt(templated_tokenizer(settings.model), "sad", "chat")
    assert toy_tokenizer().decode(list(rendered.ids)) == "b <|user|> sad <eos> <|assistant|>"
    pipeline.extract(copied / "run")
    one, two = (RunFolder(copied / name).step_file(3).read_bytes() for name in ("one_day", "run"))
    assert one == two
    assert not verify(copied / "run").findings
    other = copied / "other"
    pipeline.train(copied / "config.toml", other)  # begun on the second day
    pipeline.extract(other, steps=[0])
    steps = [RunFolder(path).read_step(0) for path in (copied / "run", other)]
    assert not np.allclose(steps[0].scores, steps[1].scores, atol=1e-3)
    assert steps[0].provenance["identity"] != steps[1].provenance["identity"]


def test_a_step_that_was_scored_on_another_prompt_is_damaged_and_not_added_to(copied):
    folder = RunFolder(copied / "run")
    record = folder.read_step(0)
    hashes = [*record.provenance["prompts"][:1], "0" * 16, *record.provenance["prompts"][2:]]
    folder.write_step(replace(record, provenance={**record.provenance, "prompts": hashes}))
    name = folder.read_probes()[1].id
    (found,) = (each for each in verify(folder.path).findings if each.kind == "damaged")
    assert found.file == "steps/step_00000000.h5"
    assert f"was scored on another prompt of probe '{name}'" in found.what
    with pytest.raises(SftscopeError, match=rf"step_00000000.h5: was scored on another prompt of probe '{name}'"):
        pipeline.extract(folder.path)
    with pytest.raises(SftscopeError, match=rf"no extracted steps yet.*scored on another prompt of probe '{name}'"):
        load_history(folder.path)


def test_a_tokenizer_that_changed_since_the_run_was_begun_is_refused(copied):
    """Its files are not in the identity: what it makes of the probes is."""
    (copied / "dated.jinja").write_text(DATED.replace("<|assistant|>", "a <|assistant|>"))
    with pytest.raises(SftscopeError, match=r"run.toml: the prompt of probe '.*' is other tokens now than when"):
        pipeline.extract(copied / "run")
    assert not RunFolder(copied / "run").step_file(3).exists()


def by_an_earlier_release(folder):
    """Without the date and the hashes of the prompts; the identity that it had."""
    content, record = folder.read_run(), folder.read_step(0)
    del content["prompts"], content["settings"]["model"]["template_date"]
    content["identity"] = identity_of(settings_in(content), content["hashes"])
    folder.write_run(content)
    provenance = {**record.provenance, "identity": content["identity"]}
    folder.write_step(replace(record, provenance={k: v for k, v in provenance.items() if k != "prompts"}))


@pytest.mark.parametrize("day", [FIRST, SECOND])
def test_a_run_of_an_earlier_release_resumes_where_its_scores_are_those_of_the_day_it_was_begun(copied, day, capsys):
    folder = RunFolder(copied / "run")
    by_an_earlier_release(folder)
    noon = (date.fromisoformat(day) - date(1970, 1, 1)).days * 86400 + 43200
    os.utime(folder.run_file, (noon, noon))
    if day == FIRST:
        pipeline.extract(folder.path)
        assert f"does not store the date that the chat template writes; {FIRST} is taken" in capsys.readouterr().err
        assert not verify(folder.path).damaged
        return
    with pytest.raises(SftscopeError, match=r"but on that day step 0 would score .* otherwise than it did"):
        pipeline.extract(folder.path)
    assert not folder.step_file(3).exists()


def test_a_run_without_a_date_in_its_template_has_the_identity_it_always_had(tmp_path, monkeypatch):
    config = write_config(tmp_path)
    files = []
    for name, day in (("one", FIRST), ("two", SECOND)):
        monkeypatch.setattr(template_date, "today", lambda day=day: day)
        settings = load_settings(config)
        begin(settings, resolve_paths(settings, tmp_path), RunFolder(tmp_path / name), config)
        files.append((tmp_path / name / "run.toml").read_bytes())
    assert files[0] == files[1]
    assert RunFolder(tmp_path / "one").read_run()["settings"]["model"]["template_date"] == ""
