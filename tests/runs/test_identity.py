"""What makes a run another one, and what does not."""

from sftscope.inputs.settings import settings_from_tables
from sftscope.runs.identity import identity_of


def test_ten_words_and_no_number_are_one_run_and_another_number_is_another():
    tables = {"model": {"path": "m"}, "data": {"train": "t"}}
    ten, none, nine = (
        identity_of(settings_from_tables({**tables, "probes": {"file": "p", **words}}), {"probes": "x"})
        for words in ({"n_words": 10}, {}, {"n_words": 9})
    )
    assert ten == none != nine
