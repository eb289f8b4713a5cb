"""Commands that are stopped from outside end with one line and the exit code that shells use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.processes import MEDSEG, PATIENCE, environment, forked
from support.worlds import phantoms, tiny

from medseg.phantom.thorax import Thorax, default_grid

STOPPED_WITHIN = """
import os, signal, sys
from medseg.cli import main
def stop():
    os.kill(os.getpid(), {number})
    while True:
        pass
class Late:
    def __del__(self):
        stop()
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            stop()
sys.meta_path.insert(0, Finder())
{setup}
sys.argv = {argv!r}
main()
"""


def stopped(name: str, setup: str, number: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    argv = ["medseg", *map(str, arguments)]
    code = STOPPED_WITHIN.format(number=int(number), name=name, setup=setup, argv=argv)
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Path:
    return Thorax().scan(default_grid((12.0, 12.0, 20.0))).save(tmp_path_factory.mktemp("s") / "a.nii.gz")


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
@pytest.mark.parametrize(
    ("name", "setup"),
    [
        ("medseg.cli.app", ""),
        ("typer", ""),
        ("", "import medseg.io.scan_info; medseg.io.scan_info.read_channels = lambda *a, **k: stop()"),
        (
            "",
            "import medseg.io.scan_info; medseg.io.scan_info.read_channels = lambda *a, **k: Late() and None",
        ),
    ],
    ids=["own import", "library import", "work", "destructor"],
)
def test_a_signal_ends_any_moment_with_one_line(scan, number, word, name, setup):
    ended = stopped(name, setup, number, "info", scan)
    assert (ended.returncode, ended.stderr) == (128 + number, f"error: {word}\n")
    assert ended.stdout == ""


def test_the_exit_code_is_that_of_the_signal_whatever_code_it_meets(scan, tmp_path):
    """Python ends by SIGINT if KeyboardInterrupt passed through exec("..."), which makes dataclasses."""
    setup = "import medseg.io.scan_info; medseg.io.scan_info.read_channels = lambda *a, **k: exec('stop()')"
    code = STOPPED_WITHIN.format(number=15, name="", setup=setup, argv=["medseg", "info", str(scan)])
    (tmp_path / "stopped.py").write_text(code)
    ended = subprocess.run(
        [sys.executable, "-m", "stopped"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (143, "error: terminated\n")


def test_a_signal_is_an_object_with_json(scan):
    ended = stopped("medseg.cli.app", "", signal.SIGTERM, "info", scan, "--json")
    assert ended.returncode == 143
    assert json.loads(ended.stdout)["error"]["reason"] == "interrupted"
    assert ended.stderr == ""


@pytest.mark.parametrize("command", [("models",), ("recipe", "lung_ct"), ("--help",), ("info", "{scan}")])
def test_a_closed_pipe_ends_with_one_line(scan, command):
    arguments = [word.format(scan=scan) for word in command]
    child = subprocess.Popen(
        [sys.executable, "-m", "medseg.cli", *arguments],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()  # before anything is printed
    message = child.stderr.read()
    assert (child.wait(PATIENCE), message) == (141, "stopped: the reader of the output closed the pipe\n")


def test_a_batch_ends_with_one_line_if_its_output_is_closed(scan, tmp_path):
    words = ["batch", scan.parent, "-o", tmp_path / "out", "--model", "threshold", "--json", "--any-modality"]
    child = subprocess.Popen(
        [sys.executable, "-m", "medseg.cli", *map(str, words)],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    message = child.stderr.read()
    assert child.wait(PATIENCE) == 141
    assert "Traceback" not in message
    assert message.endswith("stopped: the reader of the output closed the pipe\n")


AFTERWARDS = """
import atexit, os, signal, sys, time
def stop():
    os.kill(os.getpid(), {number})
    time.sleep(60)
{when}
sys.argv = ["medseg", "recipe"]
from medseg.cli import main
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "when",
    ["atexit.register(stop)", "import threading; threading._register_atexit(stop)"],
    ids=["exit", "shutdown of threads"],
)
def test_a_signal_after_the_command_ends_without_a_traceback(number, when):
    ended = subprocess.run(
        [sys.executable, "-c", AFTERWARDS.format(number=int(number), when=when)],
        env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (-number, "Next: medseg recipe NAME\n")
    assert "lung_ct" in ended.stdout


def test_a_signal_before_the_command_ends_without_a_traceback():
    code = (
        "import os, signal, medseg.cli; medseg.cli.run_command = lambda: os.kill(os.getpid(), signal.SIGINT)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", f"{code}\nmedseg.cli.main()"],
        env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "")


STARTS = {
    "python -m medseg": [sys.executable, "-m", "medseg"],
    "python -m medseg.cli": [sys.executable, "-m", "medseg.cli"],
    # What pip writes for [project.scripts].
    "medseg": [sys.executable, "-c", "import sys; from medseg.cli import main; sys.exit(main())"],
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
@pytest.mark.parametrize("modules", [1, 2, 5, 15, 40, 120])
def test_ctrl_c_while_modules_are_loaded_ends_without_a_traceback(start, modules):
    """The signal is sent when so many modules have been imported after ``medseg.cli``."""
    child = subprocess.Popen(
        [start[0], "-X", "importtime", *start[1:], "demo", "--help"],
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stderr is not None
    lines = []
    for line in child.stderr:
        lines.append(line)
        if line.split("|")[-1].strip() == "medseg.cli":
            break
    for _, line in zip(range(modules), child.stderr, strict=False):
        lines.append(line)
    child.send_signal(signal.SIGINT)
    lines += child.stderr
    code = child.wait(PATIENCE)
    assert code in (130, -signal.SIGINT), "".join(lines)  # for shells, both are 130
    said = [line for line in lines if not line.startswith("import time:")]
    assert said in ([], ["error: interrupted\n"])


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_next_to_nothing_is_imported_before_signals_are_handled(start):
    """Nothing of medseg can handle a signal before that: these imports must take no time."""
    ended = subprocess.run(
        [start[0], "-X", "importtime", *start[1:], "--version"],
        env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    names = [line.split("|")[-1].strip() for line in ended.stderr.splitlines()]
    ours = names[: names.index("medseg.cli") + 1]
    started = max(ours.index(name) for name in ("site", "runpy") if name in ours)
    assert ours[started + 1 :] == ["__future__", "medseg", "medseg.cli"]


def test_handlers_of_signals_are_restored():
    from support.commands import output

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    output("recipe")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.slow
def test_sigterm_ends_a_training_with_a_hint_and_without_a_traceback(tmp_path):
    rows = ["id,image,label,split"]
    rows += [f"{c.id},{c.images[0]},{c.label},{c.split}" for c in phantoms(tmp_path, "train", "train", "val")]
    (tmp_path / "cases.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "recipe.yaml").write_text(tiny(train={"epochs": 500}).yaml())
    words = ["train", tmp_path / "recipe.yaml", tmp_path / "cases.csv", "-o", tmp_path / "run"]
    child = forked(MEDSEG, *words, output=tmp_path / "output.txt")
    while not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists():
        assert child.is_alive(), (tmp_path / "output.txt").read_text()
        time.sleep(0.1)
    os.kill(child.pid, signal.SIGTERM)  # not to its workers: it ends them itself
    child.join(PATIENCE)
    message = (tmp_path / "output.txt").read_text()
    assert child.exitcode == 143, message
    assert "with --resume to continue" in message
    assert "Traceback" not in message
