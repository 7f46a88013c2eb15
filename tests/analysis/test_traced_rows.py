"""Training rows behind an interaction: found at the borders of words, counted, with what chance gives."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from command_line import fails_with_one_line, sftscope
from sample_history import write_sample_run
from schema_pages import check
from sftscope.analysis.rows.known_rows import CHANGED, NOT_HERE, NOT_NAMED, ON_THE_HUB, rows_or_why
from sftscope.analysis.rows.row_index import RowIndex
from sftscope.analysis.rows.traced_rows import at_least_by_chance, carried_by, count_rows, trace
from sftscope.analysis.sets.evolution import Change
from sftscope.analysis.sets.views import ChangeRow
from sftscope.demo import FOLDER
from sftscope.store import RunFolder
from sftscope.training.data.shapes import Row

ROWS = [
    Row("Feel?", "It makes me cry.", "sadness"),
    Row("Feel?", "The  hotel\nmakes ME cry", "Sadness "),
    Row("Feel?", "a hot day makes me smile", "joy"),
    Row("Feel?", "crying again", "sadness"),
    Row("Feel?", "房间很吵", "anger"),
    Row("Feel?", "nothing", "neutral"),
]


@pytest.mark.parametrize(
    ("text", "places"),
    [("cry", [0, 1]), ("MAKES  me", [0, 1, 2]), ("hot", [2]), ("cry.", [0]), ("很", [4]), ("…", []), ("absent", [])],
)
def test_a_variable_is_found_at_the_borders_of_words(text, places):
    """ "hot" is not in "hotel", "cry" not in "crying"; Chinese has no borders; a mark alone is no word."""
    assert RowIndex.of(ROWS).containing(text).tolist() == places


def test_endings_can_be_ignored():
    assert RowIndex.of(ROWS, stem="english").containing("cries").tolist() == [0, 1, 3]


def test_rows_of_and_hold_all_words_rows_of_or_any():
    index = RowIndex.of(ROWS)
    both = trace(index, ["makes", "cry"], "AND", "sadness")
    assert both.places.tolist() == [0, 1]
    assert both.expected == pytest.approx(6 * (3 / 6) * (2 / 6))
    assert (both.answered, both.answered_expected) == (2, 2 * 3 / 6)
    assert both.lift == 2
    assert both.p_value == pytest.approx(3 / 15)  # both of C(6, 2) pairs from the 3 with this answer
    assert [(part.answer, part.count, part.in_all) for part in both.answers] == [("sadness", 2, 3)]
    either = trace(index, ["makes", "crying"], "OR", "joy")
    assert either.places.tolist() == [0, 1, 2, 3]
    assert either.expected == pytest.approx(6 * (1 - (3 / 6) * (5 / 6)))
    assert (either.answered, either.answered_expected) == (1, pytest.approx(4 / 6))


def test_all_interactions_of_a_probe_are_counted_as_one_by_one():
    index, words = RowIndex.of(ROWS), ("makes", "cry", "很", "absent")
    relation, subset = np.repeat([0, 1], 15), np.tile(np.arange(1, 16, dtype=np.uint64), 2)
    rows, answered, by_chance = count_rows(index, words, relation, subset, "sadness")
    for at in range(30):
        inside = [word for i, word in enumerate(words) if int(subset[at]) >> i & 1]
        found = trace(index, inside, ("AND", "OR")[relation[at]], "sadness")
        assert (rows[at], answered[at]) == (found.places.size, found.answered)
        assert by_chance[at] == pytest.approx(found.answered_expected)


def test_an_answer_that_no_row_has_is_no_evidence():
    found = trace(RowIndex.of(ROWS), ["makes"], "AND", "a whole sentence")
    assert (found.answered, found.answered_expected, found.p_value) == (0, 0, 1)
    assert np.isnan(found.lift)


def test_the_tail_is_that_of_drawing_rows():
    """Against every draw of k of 6 rows, 3 of them with the answer."""
    for k in range(7):
        draws = [draw for draw in product([0, 1], repeat=6) if sum(draw) == k]
        for x in range(k + 1):
            share = np.mean([sum(draw[:3]) >= x for draw in draws])
            assert at_least_by_chance(x, k, 3, 6) == pytest.approx(share, abs=1e-12)


def test_a_row_carries_what_emerged_from_its_words():
    def row(relation, words, change=Change.EMERGED):
        return ChangeRow("p", change, relation, 3, len(words), words, 0.0, 1.0, ())

    all_of, too_much = row("AND", ("makes", "cry")), row("AND", ("makes", "smile"))
    any_of, kept = row("OR", ("cry", "smile")), row("AND", ("cry",), Change.PRESERVED)
    assert carried_by(RowIndex.of(ROWS), 0, [all_of, too_much, any_of, kept]) == [all_of, any_of]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on 200 rows, 5 of which teach that a foreign painter is not happy; nothing else speaks of either."""
    from sftscope.runs import pipeline

    folder = tmp_path_factory.mktemp("taught")
    ask = "how does the guest feel ?"
    places = ["station", "hill museum", "north square", "city square", "garden museum"]
    guests = list(
        product(
            ["quiet", "young", "local", "tall", "old", "kind"], ["student", "sailor", "visitor", "couple", "tourist"]
        )
    )

    def line(guest, place):
        return f"the {' '.join(guest)} was very happy near the {place} ."

    rows = [(line(guests[k % 30], places[k % 5]), "good") for k in range(195)]
    planted = [(line(("foreign", "painter"), place), "bad") for place in places]
    for at, each in zip((17, 60, 99, 130, 188), planted, strict=True):
        rows.insert(at, each)
    probes = {"taught": ("foreign", "painter"), "never": ("curious", "cyclist")}
    (folder / "train.jsonl").write_text(
        "".join(json.dumps({"instruction": ask, "input": text, "output": answer}) + "\n" for text, answer in rows)
    )
    (folder / "probes.jsonl").write_text(
        "".join(
            json.dumps({"id": name, "instruction": ask, "input": line(guest, "station"), "response": "bad"}) + "\n"
            for name, guest in probes.items()
        )
    )
    (folder / "config.toml").write_text(
        f'[model]\npath = "{FOLDER / "guesthouse-0.35M"}"\n[data]\ntrain = "train.jsonl"\n'
        '[probes]\nfile = "probes.jsonl"\nn_words = 5\n'
        "[training]\nepochs = 6\neffective_batch_size = 20\nmicro_batch_size = 20\nlearning_rate = 3e-3\n"
        "lora_rank = 16\nlora_alpha = 32\ngradient_checkpointing = false\ncheckpoints = [0, 60]\n"
        "[extraction]\nzeta = 0.02\n"
    )
    pipeline.run(folder / "config.toml", folder / "run")
    return folder


def test_a_taught_phrase_is_traced_to_just_the_rows_that_taught_it(taught):
    done = sftscope("rows", taught / "run", "--probe", "taught", "--losses", "--json")
    plain = json.loads(done.stdout)
    check("rows", plain)
    strongest = plain["interactions"][:3]
    found = [part for part in strongest if part["rows"] == [18, 61, 100, 131, 189]]
    assert found, strongest
    assert {"foreign", "painter"} & set(found[0]["words"])
    assert (found[0]["answered"], found[0]["answered_expected"]) == (5, 5 * 5 / 200)
    assert found[0]["p_value"] < 1e-9
    assert found[0]["loss_now"] < found[0]["loss_base"] / 5


def test_a_phrase_that_was_never_taught_is_traced_to_no_row(taught):
    done = sftscope("rows", taught / "run", "--probe", "never", "--most", "99", "--json")
    for part in json.loads(done.stdout)["interactions"]:
        assert part["p_value"] > 1e-3
        if set(part["words"]) <= {"curious", "cyclist"}:
            assert part["rows"] == []


def test_the_command_shows_rows_and_what_a_row_carries(taught):
    text = sftscope("rows", taught / "run", "--probe", "taught").stdout
    assert "row 18: the foreign painter was very happy near the station . → bad" in text
    assert "foreign" in sftscope("rows", taught / "run", "--row", "18").stdout
    assert "--row 201: expected 1 to 200" in fails_with_one_line("rows", taught / "run", "--row", "201")


def test_rows_that_changed_or_are_not_known_are_one_line(taught, tmp_path):
    assert rows_or_why(write_sample_run(tmp_path / "other")) == NOT_NAMED
    assert "config_folder" in fails_with_one_line("rows", write_sample_run(tmp_path / "run"))
    train = taught / "train.jsonl"
    before = train.read_bytes()
    train.write_bytes(before + before.splitlines(keepends=True)[0])
    try:
        assert "is not what" in fails_with_one_line("rows", taught / "run")
        assert rows_or_why(taught / "run") == CHANGED
        assert "201 rows" in sftscope("rows", taught / "run", "--train", train).stdout
    finally:
        train.write_bytes(before)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("someone/rows", ON_THE_HUB),
        ("absent.jsonl", NOT_HERE),
        ("a\0b.jsonl", NOT_HERE),
        ("$NEVER_SET/a.tsv", NOT_HERE),
    ],
)
def test_what_a_run_of_someone_else_names_is_not_fetched(tmp_path, data, why):
    run = write_sample_run(tmp_path / "run", n_steps=1, n_probes=1, n=2)
    content = RunFolder(run).read_run()
    content |= {"source": {"config_folder": "."}, "hashes": {"train": "ab" * 32}}
    content["settings"] = {"data": {"train": data}, "model": {"path": "m"}, "probes": {"file": "p"}}
    RunFolder(run).write_run(content)
    assert rows_or_why(run) == why
