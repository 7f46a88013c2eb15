"""Is a run whole? Every file against its hash, its schema, and the other files; and what can be recomputed.

Reads only. A file that cannot be read now is a note, never called damaged. Knows nothing of how a run is made, but
names the command that repairs what is damaged.
"""

from pathlib import Path

from sftscope.store import RunFolder
from sftscope.verification.damage import DAMAGED, Inspection, Verification
from sftscope.verification.file_checks import (
    check_checkpoints,
    check_held_out,
    check_log,
    check_others,
    check_precision,
    check_probes,
    check_run_file,
)
from sftscope.verification.step_checks import check_drafts, check_placebos, check_steps

_CHECKS = (
    check_run_file,
    check_probes,
    check_precision,
    check_steps,
    check_placebos,
    check_drafts,
    check_log,
    check_held_out,
    check_checkpoints,
    check_others,
)


def verify(path: Path) -> Verification:
    """Check every file of the run folder at `path`; SftscopeError where it is none, or no step file can be read now."""
    run = Inspection(RunFolder(path))
    if not run.folder.exists():
        run.folder.read_run()  # says what a run folder is
    for check in _CHECKS:
        check(run)
    damaged = {each.file for each in run.findings if each.kind == DAMAGED}
    whole = run.seen - damaged - run.unread.keys()
    return Verification(len(whole), tuple(run.findings), tuple(run.repairable), tuple(run.unread))
