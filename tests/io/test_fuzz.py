"""A short run of what `make fuzz` does at length; see fuzzing.py."""

from __future__ import annotations

import numpy as np
import pytest
from support import fuzzing


@pytest.mark.slow
def test_damaged_files_are_read_or_refused_and_nothing_else():
    results = fuzzing.run(150, seed=1)
    assert len(results) == 150
    assert fuzzing.failures(results, 1) == []


def test_the_whole_files_are_accepted(tmp_path):
    (tmp_path / "originals").mkdir()
    for kind, (files, name) in fuzzing.originals(tmp_path / "originals").items():
        place, target = tmp_path / kind, tmp_path / f"{kind} out"
        place.mkdir()
        target.mkdir()
        for file, content in files.items():
            (place / file).write_bytes(content)
        assert fuzzing.judged(kind, place / name, target) == ("accepted", ""), kind


def test_a_mutant_follows_from_its_seed_and_number():
    files = {"a": bytes(range(256)) * 8, "b": b"x" * 2000}
    for number in range(50):
        one, again = (fuzzing.mutant(files, "nii", np.random.default_rng([3, number])) for _ in range(2))
        assert one == again


def test_crashes_and_hangs_are_reported_with_their_number(tmp_path, monkeypatch):
    """A crash, a hang, a traceback and a file left over, each made to happen."""
    script = tmp_path / "fuzzing.py"
    source = open(fuzzing.__file__).read()  # noqa: SIM115, PTH123
    faulty = """
def judged(kind, path, target):
    number = int(os.environ["FAULT"])
    os.environ["FAULT"] = str(number + 1)
    if number == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 3:
        time.sleep(60)
    if number == 4:
        (target / "left").write_text("over")
    if number == 5:
        bytearray(1 << 28)
    return "accepted", ""

def originals(folder):
    return {"nii": ({"a": b"x" * 100}, "a")}

SECONDS = 20
MEMORY_BYTES = 200 << 20
"""
    script.write_text(source.replace('if __name__ == "__main__":', faulty + 'if __name__ == "__main__":'))
    assert faulty in script.read_text()
    monkeypatch.setattr(fuzzing, "__file__", str(script))
    monkeypatch.setattr(fuzzing, "SECONDS", 5)  # 10 s without an answer
    outcomes = []
    for first in range(6):
        monkeypatch.setenv("FAULT", str(first))
        outcomes += [r["outcome"] for r in fuzzing.run(1, first=first)]
    assert outcomes == ["accepted", "CRASH", "accepted", "HANG", "LEFTOVER", "MEMORY"]
