"""How many threads there are and how they wait, on machines and in containers of other shapes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sftscope.foundation import threads


def place(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V2 = {"proc/self/cgroup": "0::/user.slice/job\n"}
V1 = {"proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/docker/abc\n"}


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4.0),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        (V2 | {"sys/fs/cgroup/user.slice/job/cpu.max": "150000 100000\n"}, 1.5),
        # the limit of a group holds for all in it
        (
            V2
            | {
                "sys/fs/cgroup/user.slice/job/cpu.max": "max 100000\n",
                "sys/fs/cgroup/user.slice/cpu.max": "200000 100000",
            },
            2.0,
        ),
        # a container's own group is its root, whatever the host calls it
        (V2 | {"sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3.0),
        (
            V1
            | {
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
            },
            0.5,
        ),
        (V1 | {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, None),
        (V2 | {"sys/fs/cgroup/user.slice/job/cpu.max": "nonsense\n"}, None),
    ],
)
def test_the_quota_of_a_container_is_read(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    assert threads.cgroup_quota(place(tmp_path, files)) == quota


@pytest.mark.parametrize(("quota", "cores"), [(None, 64), (4.0, 4), (1.5, 2), (0.2, 1), (100.0, 64)])
def test_cores_are_those_of_the_affinity_up_to_the_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int
) -> None:
    monkeypatch.setattr(threads, "affine_cores", lambda: 64)
    monkeypatch.setattr(threads, "cgroup_quota", lambda: quota)
    assert threads.usable_cores() == cores
    environ: dict[str, str] = {}
    threads.set_thread_defaults(environ)
    expected = {"OMP_NUM_THREADS": str(cores), "OPENBLAS_NUM_THREADS": str(cores)} if cores < 64 else {}
    assert environ == {"GOMP_SPINCOUNT": threads.SPIN_COUNT, **expected}


@pytest.mark.parametrize(
    "given", [{"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}, {"OMP_NUM_THREADS": "3", "GOMP_SPINCOUNT": "1"}]
)
def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch, given: dict[str, str]) -> None:
    monkeypatch.setattr(threads, "affine_cores", lambda: 64)
    monkeypatch.setattr(threads, "cgroup_quota", lambda: 4.0)
    environ = dict(given)
    threads.set_thread_defaults(environ)
    assert environ == {"OMP_NUM_THREADS": "4", "OPENBLAS_NUM_THREADS": "4"} | given
    assert threads.waiting(environ).split()[0] in [f"{name}={value}" for name, value in given.items()]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity of processes")
def test_the_affinity_of_a_process_counts() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from sftscope.foundation.threads import usable_cores; print(usable_cores())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


def test_commands_set_it_before_pytorch_is_imported() -> None:
    """libgomp reads its environment once: OMP_DISPLAY_ENV shows what it has read."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    code = (
        "import os, sys; from sftscope_tui.cli import main; sys.argv = ['sftscope', 'plan', 'no-such-config'];"
        "from sftscope.cli import options; early = 'torch' in sys.modules\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(early, os.environ.get('GOMP_SPINCOUNT'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=True)
    assert done.stdout == f"False {threads.SPIN_COUNT}\n"
