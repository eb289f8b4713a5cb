import os
import signal
import subprocess
import sys
import threading
import time
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGExtended12Bit, RLELossless
from support.processes import environment

from medseg.errors import InputRefused, ResourceError
from medseg.io.decoder import client, worker
from medseg.system import processes

# OpenJPEG wants 64 pixels and more for its six resolutions.
FRAMES = np.arange(2 * 72 * 64, dtype=np.uint16).reshape(2, 72, 64) * 7


def dataset(frames=FRAMES, bits=16):
    """A grayscale multi-frame file, uncompressed."""
    ds = pydicom.Dataset()
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    ds.SOPInstanceUID = "1.2.3.4"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.NumberOfFrames, ds.Rows, ds.Columns = frames.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, bits, bits - 1
    ds.PixelRepresentation = int(frames.dtype.kind == "i")
    ds.PixelData = frames.tobytes()
    ds["PixelData"].VR = "OW"
    return ds


def content(ds):
    file = BytesIO()
    pydicom.dcmwrite(file, ds, enforce_file_format=True)
    return file.getvalue()


def compressed(frames=FRAMES, syntax=RLELossless):
    ds = dataset(frames)
    ds.compress(syntax)
    return ds


def decode(source, frames=(0, 1), shape=(72, 64)):
    return client.decoded(source, frames, shape=shape, expected_bytes=len(frames) * 9216)


@pytest.fixture(autouse=True, scope="module")
def _end_of_worker():
    """Ends the worker with the module, so that its coverage is written in time."""
    client.close()
    yield
    client.close()


@pytest.fixture
def odd_worker(tmp_path, monkeypatch):
    """A worker with tasks that go wrong."""
    script = tmp_path / "odd.py"
    script.write_text(
        f"""
import os, signal, sys, time
sys.path.insert(0, {str(Path(worker.__file__).parent)!r})
import worker

def noise(request, payload):
    os.write(1, b"to stdout")
    os.write(2, b"to stderr")
    print("printed", flush=True)
    return {{"echo": len(payload)}}, None

def use_memory(request, payload):
    worker.limit(request["expected_bytes"])
    return {{}}, bytearray(request["size"]) and None

def interrupted(request, payload):
    os.kill(os.getpid(), signal.SIGINT)
    return {{}}, None

def partly(request, payload):
    raise SystemExit(3)

def cut(request, payload):
    os.write(answers, b'{{"facts": {{}}, "dtype": "|u1", "shape": [1000]}}\\n123')
    os._exit(4)

duplicate = os.dup
def recording(descriptor):
    global answers
    fresh = duplicate(descriptor)
    answers = fresh
    return fresh
os.dup = recording

worker.TASKS |= {{
    "cut": cut,
    "noise": noise, "use_memory": use_memory, "interrupted": interrupted, "partly": partly,
    "die": lambda r, p: os.kill(os.getpid(), signal.SIGSEGV),
    "hang": lambda r, p: time.sleep(10_000),
}}
worker.main()
"""
    )
    client.close()
    monkeypatch.setattr(client, "_SCRIPT", script)
    yield script
    client.close()


def call(task, payload=b"", **fields):
    return client.call({"task": task, **fields}, payload, what="it fails", where=Path("x.mha"))[0]


class TestDecoding:
    @pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
    @pytest.mark.parametrize("dtype", [np.uint16, np.int16])
    def test_lossless_frames_come_back_exactly(self, tmp_path, syntax, dtype):
        frames = FRAMES.astype(dtype) - (900 if dtype == np.int16 else 0)
        raw = content(compressed(frames, syntax))
        (tmp_path / "a.dcm").write_bytes(raw)
        for source in (raw, tmp_path / "a.dcm"):
            decoded = decode(source)
            assert np.array_equal(decoded, frames)
            assert decoded.dtype == dtype
        assert np.array_equal(decode(raw, [1]), frames[1:])

    def test_12_bit_jpeg_is_decoded_by_gdcm_itself(self, tmp_path):
        gdcm = pytest.importorskip("gdcm")
        smooth = (np.add.outer(np.arange(16), np.arange(16)) * 100).astype(np.uint16)[None]
        reader = gdcm.ImageReader()
        path = tmp_path / "a.dcm"
        path.write_bytes(content(dataset(smooth, bits=12)))
        reader.SetFileName(str(path))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(path))
        assert writer.Write()
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == JPEGExtended12Bit
        decoded = client.decoded(path, [0], shape=(16, 16), expected_bytes=512)
        # Lossy: a few grey values of 3000.
        assert np.abs(decoded.astype(int) - smooth).max() < 50
        client.close()  # a crash would lose the coverage of the lines above
        broken = pydicom.dcmread(path)
        stream = bytearray(next(generate_frames(broken.PixelData, number_of_frames=1)))
        stream[2:40] = bytes(38)
        broken.PixelData = encapsulate([bytes(stream)])
        # GDCM 3.0 and 3.2 abort on some damage and give up on other.
        with pytest.raises(InputRefused, match=r"corrupt|crashed") as caught:
            client.decoded(content(broken), [0], shape=(16, 16), expected_bytes=512)
        assert caught.value.reason in ("unreadable", "reader-crashed")

    def test_a_frame_that_ends_too_early_is_refused(self):
        ds = compressed(syntax=JPEG2000Lossless)
        whole = list(generate_frames(ds.PixelData, number_of_frames=2))
        for cut in (2, len(whole[1]) // 2):
            ds.PixelData = encapsulate([whole[0], whole[1][:-cut].rstrip(b"\0")])
            with pytest.raises(InputRefused, match="frame 2 are truncated") as caught:
                decode(content(ds))
            assert caught.value.reason == "unreadable"
            assert np.array_equal(decode(content(ds), [0]), FRAMES[:1])

    def test_padding_after_the_end_marker_is_fine(self):
        ds = compressed(syntax=JPEG2000Lossless)
        whole = list(generate_frames(ds.PixelData, number_of_frames=2))
        ds.PixelData = encapsulate([frame + b"\xff\0\xff\0" for frame in whole])
        assert np.array_equal(decode(content(ds)), FRAMES)

    def test_the_message_of_a_decoder_becomes_one_line(self):
        ds = compressed()
        whole = list(generate_frames(ds.PixelData, number_of_frames=2))
        ds.PixelData = encapsulate([whole[0], whole[1][:70]])
        with pytest.raises(InputRefused, match=r"cannot be decoded: pydicom: .*RLE") as caught:
            decode(content(ds))
        assert len(str(caught.value).splitlines()) == 2

    @pytest.mark.parametrize(("shape", "message"), [((64, 72), "72 x 64"), ((72, 63), "72 x 64")])
    def test_another_shape_is_refused(self, shape, message):
        with pytest.raises(InputRefused, match=message):
            decode(content(compressed()), shape=shape)

    def test_colour_is_refused(self):
        ds = compressed()
        ds.SamplesPerPixel = 3
        with pytest.raises(InputRefused, match="colour"):
            decode(content(ds))

    def test_decoders_that_are_not_installed_are_named(self, monkeypatch):
        # As pydicom says it in an environment without GDCM and pylibjpeg.
        error = "Unable to decompress 'JPEG 2000' pixel data because all plugins are missing dependencies:"
        answer = {"error": error, "reason": "unreadable"}
        lacking = SimpleNamespace(ask=lambda *_: (answer, np.empty(0)))
        monkeypatch.setattr(client, "_running", lambda: lacking)
        with pytest.raises(InputRefused) as refused:
            client.decoded(b"", [0], shape=(2, 2), expected_bytes=8)
        assert refused.value.remedy.startswith("pip install python-gdcm")

    def test_floats_are_refused(self, monkeypatch):
        monkeypatch.setattr(client, "call", lambda *_, **__: ({}, np.zeros((1, 2, 2), np.float32)))
        with pytest.raises(InputRefused, match="float32"):
            client.decoded(b"", [0], shape=(2, 2), expected_bytes=8)

    def test_a_file_that_is_not_dicom_is_refused_by_name(self, tmp_path):
        (tmp_path / "x.dcm").write_bytes(b"no" * 400)
        with pytest.raises(InputRefused) as caught:
            decode(tmp_path / "x.dcm")
        assert caught.value.where == str(tmp_path / "x.dcm")

    def test_mixed_pixel_types_are_refused(self, monkeypatch):
        types = iter([np.uint8, np.uint16])
        raw = content(dataset())
        monkeypatch.setattr(
            "pydicom.pixels.pixel_array", lambda *_, **__: np.zeros((72, 64), next(types)), raising=True
        )
        monkeypatch.setattr(worker, "limit", lambda _: None)
        with pytest.raises(ValueError, match="different pixel types"):
            worker.frames(
                {"path": None, "frames": [0, 1], "rows": 72, "columns": 64, "expected_bytes": 0}, raw
            )


class TestWorker:
    def test_a_crash_is_a_refusal_and_the_next_call_works(self, odd_worker):
        with pytest.raises(InputRefused, match="SIGSEGV") as caught:
            call("die")
        assert caught.value.reason == "reader-crashed"
        assert caught.value.where == "x.mha"
        assert call("noise", b"abc") == {"echo": 3}

    def test_a_plain_exit_is_a_crash_too(self, odd_worker):
        with pytest.raises(InputRefused, match="exit code 3") as caught:
            call("partly")
        assert caught.value.reason == "reader-crashed"

    def test_output_printed_by_libraries_is_discarded(self, odd_worker, capfd):
        assert call("noise", bytes(1 << 20)) == {"echo": 1 << 20}
        assert capfd.readouterr() == ("", "")

    def test_a_hang_ends(self, odd_worker, monkeypatch):
        call("noise")
        monkeypatch.setattr(client, "_SECONDS", 0.3)
        with pytest.raises(InputRefused, match="did not finish") as caught:
            call("hang")
        assert caught.value.reason == "reader-timeout"

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="limits are set on Linux")
    def test_memory_beyond_the_announced_size_is_refused(self, odd_worker):
        assert call("use_memory", expected_bytes=100 << 20, size=100 << 20) == {}
        with pytest.raises(InputRefused, match="memory") as caught:
            call("use_memory", expected_bytes=1 << 20, size=600 << 20)
        assert caught.value.reason == "too-large"
        assert call("noise") == {"echo": 0}  # it survives

    def test_workers_ignore_ctrl_c(self, odd_worker):
        assert call("interrupted") == {}

    def test_it_ends_when_its_parent_does(self, odd_worker):
        call("noise")
        process = client._worker.process
        client._worker.to.close()
        assert process.wait(10) == 0

    def test_one_worker_serves_all_threads(self, odd_worker):
        answers = []
        threads = [
            threading.Thread(target=lambda n=n: answers.append(call("noise", bytes(n))["echo"]))
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answers) == list(range(8))

    def test_an_interruption_in_the_middle_leaves_no_half_answer(self, odd_worker, monkeypatch):
        call("noise")

        def interrupt(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(client, "write_all", interrupt)
            with pytest.raises(KeyboardInterrupt):
                call("noise", b"1")
        assert call("noise", b"22") == {"echo": 2}

    def test_a_forked_process_has_its_own(self, odd_worker):
        if not hasattr(os, "fork"):
            pytest.skip("no fork here")
        call("noise")
        mine = client._worker.process.pid
        child = os.fork()
        if child == 0:  # pragma: no cover - another process
            code = 1
            try:
                fresh = client._worker is None
                call("noise", b"1")
                code = 0 if fresh and client._worker.process.pid != mine else 2
                client.close()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert call("noise", b"22") == {"echo": 2}
        assert client._worker.process.pid == mine

    def test_a_released_worker_ends(self, odd_worker):
        # What a forked child does, done here, where it closes the only pipe there is.
        call("noise")
        pid = client._worker.process.pid
        client._forget()
        assert client._worker is None
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        client._forget()

    def test_a_worker_that_will_not_end_is_killed(self, odd_worker, monkeypatch):
        call("noise")
        process = client._worker.process
        monkeypatch.setattr(client, "_END_SECONDS", 0.2)
        processes.send({"task": "hang", "seconds": 60}, process.stdin)
        client.close()
        assert process.returncode == -signal.SIGKILL

    def test_a_worker_that_exits_in_the_middle_of_an_answer_has_crashed(self, odd_worker):
        with pytest.raises(InputRefused) as caught:
            client.call({"task": "cut"}, what="it fails", array_shape=(1000,))
        assert caught.value.reason == "reader-crashed"

    def test_a_missing_python_executable_is_reported(self, monkeypatch):
        client.close()
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(ResourceError, match="cannot be started") as caught:
            call("setup")
        assert caught.value.reason == "worker"

    def test_a_worker_that_exits_at_once_is_reported(self, monkeypatch, tmp_path):
        client.close()
        monkeypatch.setattr(client, "_SCRIPT", tmp_path / "nothing.py")
        with pytest.raises(ResourceError, match="does not start"):
            call("setup")

    def test_an_array_of_another_shape_is_refused(self):
        raw = content(compressed())
        request = {"task": "frames", "path": None, "frames": [0], "rows": 72, "columns": 64}
        with pytest.raises(InputRefused, match="shape"):
            client.call({**request, "expected_bytes": 9216}, raw, what="it fails", array_shape=(2, 72, 64))

    def test_no_file_is_left_behind_and_torch_is_not_imported(self):
        code = (
            "import sys\n"
            "from medseg.io.decoder import client\n"
            "client.call({'task': 'setup', 'sys_path': sys.path}, what='')\n"
            "print(client._worker.process.pid, 'torch' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
        )
        pid, torch = done.stdout.split()
        assert torch == "False"
        assert done.stderr == ""
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)

    def test_killed_parents_leave_no_worker(self):
        code = (
            "import sys, time\n"
            "from medseg.io.decoder import client\n"
            "client.call({'task': 'setup', 'sys_path': sys.path}, what='')\n"
            "print(client._worker.process.pid, flush=True)\n"
            "time.sleep(10_000)"
        )
        parent = subprocess.Popen(
            [sys.executable, "-c", code], env=environment(), stdout=subprocess.PIPE, text=True
        )
        pid = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        parent.stdout.close()
        while running(pid):  # pytest's own limit ends a test in which it stays
            time.sleep(0.05)


def running(pid):
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_the_loop_in_this_process(monkeypatch):
    # The worker's own loop, run here so that its lines count as covered on every platform.
    monkeypatch.delattr(signal, "alarm", raising=False)
    requests = BytesIO(
        b'{"task": "echo", "seconds": 1, "payload": 2}\nhi{"task": "lost", "seconds": 1}\n'
        b'{"task": "full", "seconds": 1}\n{"task": "none", "seconds": 1}\n'
    )

    def full(*_):
        raise MemoryError

    tasks = {
        "echo": lambda r, p: ({}, np.frombuffer(p, np.uint8)),
        "full": full,
        "none": lambda r, p: ({"a": 1}, None),
    }
    monkeypatch.setattr(worker, "TASKS", tasks)
    answers = BytesIO()
    worker.serve(requests, answers)
    lines = answers.getvalue().split(b"\n")
    assert lines[0].startswith(b'{"facts": {}, "dtype": "|u1", "shape": [2]}')
    assert lines[1].startswith(b'hi{"error": "\'lost\'", "reason": "unreadable"}')
    assert b"too-large" in lines[2]
    assert lines[3] == b'{"facts": {"a": 1}}'
