"""Two batches never use the same folder at once."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from filelock import FileLock
from support.batches import config_for, run

from medseg.batch_processing.case_discovery import items
from medseg.batch_processing.folder_lock import lock_folder
from medseg.batch_processing.settings import BatchResources
from medseg.errors import UsageError


def test_two_runs_on_one_folder_exclude_one_another(scans, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    holder = "import sys, time\nfrom pathlib import Path\n"
    holder += "from medseg.batch_processing.folder_lock import lock_folder\n"
    holder += "with lock_folder(Path(sys.argv[1])): print('held', flush=True); time.sleep(100)"
    with subprocess.Popen([sys.executable, "-c", holder, out], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(UsageError, match=f"process {other.pid} on ") as refused:
            run(items(scans / "cases.csv"), config_for(out))
        assert refused.value.reason == "in-use"
        with pytest.raises(UsageError), lock_folder(out, "1-of-2"):
            pass
        other.kill()
        other.wait()
    assert run(items(scans / "cases.csv")[:1], config_for(out)).done == 1
    with lock_folder(out, "1-of-2"), lock_folder(out, "2-of-2"), pytest.raises(UsageError), lock_folder(out):
        pass


def test_shards_that_start_at_once_wait_for_one_another(tmp_path):
    """Each probes the lock of the whole run for a moment; another shard then waits."""
    probing = FileLock(tmp_path / ".lock", thread_local=False)
    probing.acquire()
    timer = threading.Timer(0.3, probing.release)
    timer.start()
    with lock_folder(tmp_path, "1-of-40"):
        assert not probing.is_locked
    timer.join()


def test_40_shards_that_start_at_once_all_run(tmp_path):
    """Each holds its lock until all of them do; a run of the whole is refused meanwhile."""
    together = threading.Barrier(41, timeout=120)

    def shard(number):
        together.wait()
        with lock_folder(tmp_path, f"{number}-of-40"):
            together.wait()
            together.wait()

    with ThreadPoolExecutor(40) as threads:
        started = [threads.submit(shard, number) for number in range(1, 41)]
        together.wait()
        together.wait()
        with pytest.raises(UsageError) as refused, lock_folder(tmp_path):
            pass
        together.wait()
        for each in started:
            each.result()
    assert refused.value.reason == "in-use"
    with lock_folder(tmp_path):  # free again
        pass


@pytest.mark.parametrize("text", ["1/2", "01/2", "1/02"])
def test_a_shard_has_one_name_however_it_is_written(text):
    assert BatchResources(shard=text).shard_name == "1-of-2"
