"""The command `medseg batch`."""

import subprocess
from codecs import BOM_UTF8

from support.batches import medseg


def test_the_command_line_reports_failures(scans, tmp_path):
    (scans / "1.nii.gz").write_bytes(b"")
    command = medseg("batch", scans, "-o", tmp_path / "out", "--model", "threshold", "--memory", "3G")
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stdout.strip() == "5 done, 1 failed"
    assert "1: threshold: failed: empty" in ended.stderr
    assert "\nfailed: 1\n" in ended.stderr
    assert f"medseg report {tmp_path / 'out'}" in ended.stderr
    resumed = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert "5 of 6 cases are already done, 1 failed before" in resumed.stderr
    merged = subprocess.run(
        medseg("batch", "--merge", tmp_path / "out"), capture_output=True, text=True, check=True
    )
    assert merged.stdout.strip() == "0 done, 5 already done, 1 failed"
    assert not (tmp_path / "out" / "results.csv").read_bytes().startswith(BOM_UTF8)
    with_mark = medseg("batch", "--merge", tmp_path / "out", "--bom")
    subprocess.run(with_mark, capture_output=True, text=True, check=True)
    assert (tmp_path / "out" / "results.csv").read_bytes().startswith(BOM_UTF8)


def test_a_closed_pipe_ends_the_batch_without_a_traceback(scans, tmp_path):
    command = medseg("batch", scans, "-o", tmp_path / "out", "--model", "threshold", "--workers", 1, "--json")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        text = process.stderr.read().decode()
    assert process.returncode == 141
    assert "Traceback" not in text
    assert "Exception" not in text
