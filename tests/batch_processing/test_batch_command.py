"""The command `medseg batch`."""

import subprocess

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
    merged = subprocess.run(
        medseg("batch", "--merge", tmp_path / "out"), capture_output=True, text=True, check=True
    )
    assert merged.stdout.strip() == "0 done, 5 already done, 1 failed"
