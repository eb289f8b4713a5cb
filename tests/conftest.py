import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# An example may take as long as it takes on a busy machine.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# The tests' networks are tiny: more threads only wait for one another, most of all under xdist.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts what runs in its background with SIGINT ignored, and so do the commands that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Notebooks and slow tests come first, so that no worker of xdist begins one when the others are done."""
    items.sort(key=lambda item: item.path.suffix != ".ipynb" and not item.get_closest_marker("slow"))


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """A folder without neighbours: a DICOM series is also looked for in the folders beside its own."""
    folder = tmp_path / "own"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real scans beside the repository; tests that need it skip without it."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real scans: {folder} does not exist")
    return folder
