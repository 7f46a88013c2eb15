"""Threads on a machine that is shared: how many cores this process may use, and how OpenMP's threads wait.

`set_thread_defaults` has to run before PyTorch is first imported: libgomp reads its environment as it is loaded.
"""

import math
import os
import platform
from collections.abc import MutableMapping
from pathlib import Path

# libgomp's threads spin for each other after every small operation.
# With one of two cores taken by another process the demo took over 300 s by default, 35 s with this count and 25 s
# with OMP_WAIT_POLICY=PASSIVE; idle 17.4, 17.8 and 28 s.
SPIN_COUNT = "1000"
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_ROOT = Path("/")


def set_thread_defaults(environ: MutableMapping[str, str]) -> None:
    """Let threads wait without taking the core of another process, and be no more than the container may run.

    What the user has set stays. environ: of this process, or of one that is about to be started.
    """
    if not any(environ.get(name) for name in _WAITING):
        environ["GOMP_SPINCOUNT"] = SPIN_COUNT
    # the libraries count the cores of the affinity themselves, and know more about hyperthreads; of quotas they
    # know nothing
    if usable_cores() < affine_cores():
        for name in _COUNTS:
            environ.setdefault(name, str(usable_cores()))


def waiting(environ: MutableMapping[str, str]) -> str:
    """How OpenMP's threads wait, as it is set: `GOMP_SPINCOUNT=1000`; empty where nothing is."""
    return " ".join(f"{name}={environ[name]}" for name in _WAITING if environ.get(name))


def cpu_name() -> str:
    """The processor's model; its architecture where the system does not name one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    keys = ("model name", "Model\t", "cpu model")  # x86; Raspberry Pi; MIPS
    named = (line.partition(":")[2].strip() for line in lines if line.startswith(keys))
    return next(named, "") or platform.processor() or platform.machine()


def blas_libraries() -> list[str]:
    """The BLAS libraries of NumPy, SciPy and what else is loaded, with version and the kernels chosen for this CPU."""
    try:
        import scipy.linalg  # noqa: F401  # is loaded late, else the list would depend on when it is made
        from threadpoolctl import threadpool_info  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:  # of the extra `solver`
        return []
    blas = [part for part in threadpool_info() if part.get("user_api") == "blas"]
    named = (" ".join(str(part.get(key) or "") for key in ("internal_api", "version", "architecture")) for part in blas)
    return sorted({" ".join(name.split()) for name in named})


def usable_cores() -> int:
    """Cores that this process may use: those of its affinity, no more than the quota of its cgroups; at least 1."""
    quota = cgroup_quota()
    return affine_cores() if quota is None else max(1, min(affine_cores(), math.ceil(quota)))


def affine_cores() -> int:
    """Cores that the scheduler may run this process on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cgroup_quota(root: Path = _ROOT) -> float | None:
    """CPUs' worth of time that the cgroups of this process may use, the least of all levels; None without a limit.

    Both versions of cgroups; a container sees its own group as the root. root: of the file system.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return None
    quotas = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            quotas += [_quota_v2(folder) for folder in _levels(root / "sys/fs/cgroup", group)]
        elif "cpu" in controllers.split(","):
            for mount in ("cpu", controllers):
                quotas += [_quota_v1(folder) for folder in _levels(root / "sys/fs/cgroup" / mount, group)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _levels(mount: Path, group: str) -> list[Path]:
    """The folder of a cgroup and of all that it lies in, as far as they are seen from here."""
    folder = mount / group.lstrip("/")
    return [level for level in (folder, *folder.parents) if level.is_relative_to(mount)]


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        return None if quota <= 0 else quota / int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError, ZeroDivisionError):
        return None
