"""What all tests share: where real models and data lie, and one thread for tiny models."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import warnings_policy
from sftscope.foundation.threads import set_thread_defaults, usable_cores

ToyRun = Callable[..., tuple[Path, Path]]
MOST_WORKERS = 4  # each imports PyTorch and has models of its own
# rooms and files that depend on no release of a library: .ci/run tests them with one set of releases only
OWN = ("files", "foundation", "lattice", "analysis", "distributed", "verification")
OWN_FILES = ("test_gate.py", "test_ending.py", "test_streams.py", "test_environment.py", "test_ownership.py")
OWN_FILES += ("test_resume.py", "test_machine_moods.py", "test_faults.py", "test_full_disk.py", "test_terminals.py")
OWN_FILES += ("test_cli.py", "test_presets.py", "test_plan.py", "test_universal_matching.py", "test_many_variables.py")
OWN_FILES += ("test_kills.py", "test_documents.py", "test_sample_page.py", "test_sample_runs.py", "test_schemas.py")

# no example fails for the time it took, on a machine that is shared; in CI too, they are new ones in each run
settings.register_profile("sftscope", deadline=None)
settings.load_profile("sftscope")


def pytest_configure(config: pytest.Config) -> None:
    warnings_policy.pytest_configure(config)
    # Threads only wait for each other on models this small; child processes inherit the setting.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    set_thread_defaults(os.environ)  # as the commands do
    os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name in OWN or item.path.name in OWN_FILES:
            item.add_marker("campaign")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` of pyproject.toml means: a process for each core that this one may use."""
    return min(usable_cores(), MOST_WORKERS)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if "torch" in sys.modules:
        # A library that an earlier test used may have set the threads of the whole process; with other ones than its
        # child processes have, its scores differ in the last bit, and step files that are compared by their bytes.
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if item.get_closest_marker("gpu"):
        import torch  # here only: tests of the explorer run without it

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")  # the marker means that: nothing else can run these


def _folder(variable: str, what: str) -> Path:
    path = os.environ.get(variable)
    if not path or not Path(path).is_dir():
        # weights and data are not part of the project: .ci/run names them where they lie beside the checkout
        pytest.skip(f"{variable} names no folder with {what}")
    return Path(path)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct."""
    folder = _folder("SFTSCOPE_MODELS", "the two small LLMs")
    return folder / "smollm2-135m-instruct" / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="session")
def gemma3() -> Path:
    """The GGUF file of Gemma-3-270M, a base model without chat template."""
    folder = _folder("SFTSCOPE_MODELS", "the two small LLMs")
    return folder / "gemma-3-270m" / "gemma-3-270m-q4_k_m.gguf"


@pytest.fixture(scope="session")
def goemotions() -> Path:
    """The folder with the GoEmotions files."""
    return _folder("SFTSCOPE_DATA", "training data") / "goemotions"


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> ToyRun:
    """`toy_run(extracted=…, **replaced)` is (config, run folder) of a toy run, in a folder of its own.

    Each is trained and extracted once in a session; whoever asks is given a copy. replaced: as of `write_config`.
    """
    made: dict[tuple[bool, tuple[tuple[str, str], ...]], Path] = {}

    def copy(*, extracted: bool = False, **replaced: str) -> tuple[Path, Path]:
        from run_configs import write_config
        from sftscope.runs import pipeline

        key = extracted, tuple(sorted(replaced.items()))
        if key not in made:
            if extracted:
                folder = copy(**replaced)[0].parent
                pipeline.extract(folder / "run")
            else:
                folder = tmp_path_factory.mktemp("toy")
                pipeline.train(write_config(folder, **replaced), folder / "run")
            made[key] = folder
        folder = tmp_path_factory.mktemp("run")
        shutil.copytree(made[key], folder, dirs_exist_ok=True)
        return folder / "config.toml", folder / "run"

    return copy


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest, toy_run: ToyRun) -> tuple[Path, Path]:
    """(config, run folder) of a toy run that is trained and not extracted; CONFIG of the test's module is replaced."""
    return toy_run(**getattr(request.module, "CONFIG", {}))


@pytest.fixture
def fresh(trained: tuple[Path, Path]) -> Iterator[Any]:
    """A copy of it, in the same folder, so that its paths hold."""
    from sftscope.store import RunFolder

    copy = trained[1].with_name("copy")
    shutil.copytree(trained[1], copy)
    yield RunFolder(copy)
    shutil.rmtree(copy)


@pytest.fixture(scope="module")
def extracted(toy_run: ToyRun) -> tuple[Path, Any]:
    """(config, run folder) of a toy run that is trained and extracted."""
    from sftscope.store import RunFolder

    config, run = toy_run(extracted=True)
    return config, RunFolder(run)


@pytest.fixture
def unextracted(extracted: tuple[Path, Any], tmp_path: Path) -> Any:
    """A copy of it without its results."""
    copy = tmp_path / extracted[1].path.name
    shutil.copytree(extracted[1].path, copy, ignore=shutil.ignore_patterns("steps"))
    toml = (copy / "run.toml").read_text()
    relative = os.path.relpath(extracted[0].parent, copy)
    (copy / "run.toml").write_text(toml.replace('config_folder = ".."', f'config_folder = "{relative}"'))
    return type(extracted[1])(copy)
