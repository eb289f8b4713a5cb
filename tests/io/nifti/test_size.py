import gzip
import zlib

import numpy as np
import pytest
from support.nifti_files import NUMBERS, craft, crafted, reason_of

from medseg import io
from medseg.errors import InputRefused, InputWarning
from medseg.system import memory_budget


class TestSize:
    def test_a_few_bytes_after_the_voxels_are_ignored_with_a_warning(self, tmp_path):
        raw = b"".join(crafted()) + b"padding"
        for name, content in (("a.nii", raw), ("b.nii.gz", gzip.compress(raw))):
            (tmp_path / name).write_bytes(content)
            with pytest.warns(InputWarning, match=f"{name}: ignored 7 bytes after"):
                assert np.array_equal(io.read(tmp_path / name).array, NUMBERS)

    def test_many_bytes_after_the_voxels_are_refused(self, tmp_path):
        raw = b"".join(crafted())
        for name, content in (
            ("a.nii", raw + bytes(4097)),
            ("b.nii.gz", gzip.compress(raw + bytes(4097))),
            ("bomb.nii.gz", gzip.compress(raw + bytes(100 << 20), 9)),
        ):
            (tmp_path / name).write_bytes(content)
            assert reason_of(tmp_path / name) == "excess"

    def test_garbage_after_the_gzip_stream_is_refused(self, tmp_path):
        (tmp_path / "a.nii.gz").write_bytes(gzip.compress(b"".join(crafted())) + b"garbage")
        assert reason_of(tmp_path / "a.nii.gz") == "unreadable"

    def test_a_size_that_gzip_cannot_reach_is_refused_before_allocation(self, tmp_path):
        # 2 GB promised by a file of about 100 bytes: deflate shrinks 1032 to 1 at most.
        raw = gzip.compress(b"".join(crafted(dim=(3, 1024, 1024, 1024, 1, 1, 1, 1))))
        (tmp_path / "a.nii.gz").write_bytes(raw)
        with pytest.raises(InputRefused, match="truncated"):
            io.read(tmp_path / "a.nii.gz")

    def test_gigabytes_of_one_value_are_a_bomb(self, tmp_path):
        # 4 GiB of zeros promised, and nearly as many there: 128 members of 32 MiB each.
        header, _ = crafted(
            dim=(3, 2048, 1024, 1024, 1, 1, 1, 1), srow=(0.1, 0, 0, 0, 0, 0.1, 0, 0, 0, 0, 0.1, 0)
        )
        zeros = gzip.compress(bytes(32 << 20), 9)
        (tmp_path / "a.nii.gz").write_bytes(gzip.compress(header) + zeros * 128)
        with pytest.raises(InputRefused, match="bomb") as caught:
            io.read(tmp_path / "a.nii.gz")
        assert caught.value.reason == "bomb"

    def test_more_than_memory_holds_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr(memory_budget, "available_bytes", lambda: 24 * 6 - 1)
        with pytest.raises(InputRefused, match="memory") as caught:
            io.read(craft(tmp_path / "a.nii"))
        assert caught.value.reason == "too-large"
        monkeypatch.setattr(memory_budget, "available_bytes", lambda: 24 * 6)
        io.read(tmp_path / "a.nii")

    def test_corrupt_data_are_reported_as_corrupt(self, tmp_path):
        raw = b"".join(crafted())
        packed = gzip.compress(raw)[:10] + b"\xff" * 50
        (tmp_path / "a.nii.gz").write_bytes(packed)
        with pytest.raises(InputRefused, match="damaged"):
            io.read(tmp_path / "a.nii.gz")
        with pytest.raises(zlib.error):
            gzip.decompress(packed)
