import gzip
import os
import zlib

import numpy as np
import pytest
import SimpleITK as sitk

from medseg import io
from medseg.errors import InputRefused, InputWarning, ResourceError
from medseg.images.grid import Grid
from medseg.images.volume import Volume
from medseg.io import gzip_stream
from medseg.io.decoder import client
from medseg.system import memory_budget

GRID = Grid.from_spacing((2, 3, 4), (0.5, 1, 2), origin_mm=(1, 2, 3))
VOLUME = Volume(np.arange(24, dtype=np.int16).reshape(2, 3, 4), GRID)

NRRD = """NRRD0004
type: short
dimension: 3
space: {space}
sizes: 1 1 2
space directions: (2,0,0) (0,3,0) (0,0,4)
space origin: (10,20,30)
kinds: domain domain domain
endian: little
encoding: ascii

5 6
"""


@pytest.fixture(autouse=True, scope="module")
def _end_of_worker():
    """Ends the worker with the module, so that its coverage is written in time."""
    client.close()
    yield
    client.close()


def reason_of(path, **options):
    with pytest.raises(InputRefused) as caught:
        io.read(path, **options)
    assert caught.value.where
    assert len(str(caught.value).splitlines()) <= 3
    return caught.value.reason


@pytest.mark.parametrize(
    ("space", "world"),
    [
        # Index (0, 0, 1) is at (10, 20, 34) in the file's own space; RAS flips the L and P axes.
        ("left-posterior-superior", (-10, -20, 34)),
        ("LPS", (-10, -20, 34)),
        ("right-anterior-superior", (10, 20, 34)),
        ("left-anterior-superior", (-10, 20, 34)),
    ],
)
def test_nrrd_spaces_become_ras(tmp_path, space, world):
    (tmp_path / "a.nrrd").write_text(NRRD.format(space=space))
    volume = io.read(tmp_path / "a.nrrd")
    assert volume.grid.world((0, 0, 1)) == pytest.approx(world)
    assert volume.grid.spacing_mm == pytest.approx((2, 3, 4))
    assert volume.array.ravel().tolist() == [5, 6]
    assert volume.source.format == "nrrd"


def test_nrrd_without_an_anatomical_space_is_refused(tmp_path):
    (tmp_path / "a.nrrd").write_text(NRRD.format(space="scanner-xyz"))
    assert reason_of(tmp_path / "a.nrrd") == "no-geometry"
    lines = NRRD.format(space="x").splitlines(keepends=True)
    plain = [line for line in lines if "space" not in line]
    (tmp_path / "b.nrrd").write_text("".join(plain))
    assert reason_of(tmp_path / "b.nrrd") == "no-geometry"


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_several_channels_and_dimensions_are_refused(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(sitk.Image([2, 3, 4], sitk.sitkVectorInt16, 2), str(path))
    assert reason_of(path) == "several-channels"
    sitk.WriteImage(sitk.Image([2, 3, 4, 2], sitk.sitkInt16), str(path))
    assert reason_of(path) == "several-channels"
    sitk.WriteImage(sitk.Image([2, 3], sitk.sitkInt16), str(path))
    assert reason_of(path) == "not-3d"


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_single_volume_has_number_1(tmp_path, suffix):
    path = io.write(VOLUME, tmp_path / f"a{suffix}")
    assert np.array_equal(io.read(path, volume=1).array, VOLUME.array)
    assert reason_of(path, volume=2) == "no-volume"


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_complex_and_not_finite_are_refused(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(np.full((4, 3, 2), np.nan, np.float32)), str(path))
    with pytest.raises(InputRefused, match="24 of 24"):
        io.read(path)
    with pytest.warns(InputWarning, match="24 of 24 .* replaced by -7"):
        assert set(io.read(path, nonfinite=-7).array.ravel()) == {-7}
    sitk.WriteImage(sitk.Image([2, 3, 4], sitk.sitkComplexFloat32), str(path))
    assert reason_of(path) in ("several-channels", "pixel-type")  # two numbers a voxel, in these formats


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nhdr", ".mhd"])
@pytest.mark.parametrize(
    ("content", "message"), [("not an image", "a text file"), ("\x89PNG\r\n\x1a\n..", "a PNG picture")]
)
def test_files_of_another_format_are_refused_and_named(tmp_path, suffix, content, message):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(InputRefused, match=message) as caught:
        io.read(path)
    assert caught.value.reason == "format"


@pytest.mark.parametrize(("suffix", "data"), [(".nhdr", ".raw.gz"), (".mhd", ".zraw")])
def test_a_detached_header_names_its_data_and_needs_it(tmp_path, suffix, data):
    path = io.write(VOLUME, tmp_path / f"scan{suffix}")
    assert sorted(f.name for f in tmp_path.iterdir()) == sorted([f"scan{suffix}", f"scan{data}"])
    assert np.array_equal(io.read(path).array, VOLUME.array)
    (tmp_path / f"scan{data}").unlink()
    with pytest.raises(InputRefused, match=f"scan{data}") as caught:
        io.read(path)
    assert caught.value.reason == "not-found"


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_memory_order_does_not_matter(tmp_path, suffix):
    turned = VOLUME.oriented("PSR")
    back = io.read(io.write(turned, tmp_path / f"a{suffix}"))
    assert np.array_equal(back.array, turned.array)
    assert back.grid.distance_mm(turned.grid) < 1e-9


# 1 x 1 x 2 voxels of 2 x 3 x 4 mm, the numbers 5 and 6; index (0, 0, 1) at LPS (10, 20, 34).
BINARY_NRRD = NRRD.format(space="left-posterior-superior").replace("ascii", "raw").encode()[:-4] + b"\5\0\6\0"
MHA = b"""ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = False
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = 10 20 30
ElementSpacing = 2 3 4
DimSize = 1 1 2
ElementType = MET_SHORT
ElementDataFile = LOCAL
\5\0\6\0"""


def write(path, raw):
    path.write_bytes(raw)
    return path


def changed(raw, old, new):
    assert old in raw
    return raw.replace(old, new)


@pytest.mark.parametrize(("name", "raw"), [("a.nrrd", BINARY_NRRD), ("a.mha", MHA), ("A.MHA", MHA)])
def test_the_smallest_files_read(tmp_path, name, raw):
    volume = io.read(write(tmp_path / name, raw))
    assert volume.array.ravel().tolist() == [5, 6]
    assert volume.grid.spacing_mm == pytest.approx((2, 3, 4))
    assert volume.grid.world((0, 0, 1)) == pytest.approx((-10, -20, 34))


@pytest.mark.parametrize("msb", [False, True])
def test_both_byte_orders(tmp_path, msb):
    raw = changed(MHA, b"MSB = False", b"MSB = " + str(msb).encode())
    expected = [0x0500, 0x0600] if msb else [5, 6]
    assert io.read(write(tmp_path / "a.mha", raw)).array.ravel().tolist() == expected


@pytest.mark.parametrize(
    ("line", "instead", "reason"),
    [
        (b"TransformMatrix = 1 0 0 0 1 0 0 0 1\n", b"", "no-geometry"),
        (b"TransformMatrix = 1 0 0 0 1 0 0 0 1\n", b"AnatomicalOrientation = LPS\n", "no-geometry"),
        (b"Offset = 10 20 30\n", b"", "no-geometry"),
        (b"ElementSpacing = 2 3 4\n", b"", "no-geometry"),
        (b"ElementSpacing = 2 3 4\n", b"ElementSpacing = 2 3 4\nDistanceUnits = um\n", "no-geometry"),
        (b"ElementSpacing = 2 3 4", b"ElementSpacing = 2 -3 4", "geometry"),
        (b"ElementSpacing = 2 3 4", b"ElementSpacing = 2 0 4", "geometry"),
        (b"ElementSpacing = 2 3 4", b"ElementSpacing = 2 nan 4", "geometry"),
        (b"ElementSpacing = 2 3 4", b"ElementSpacing = 2 3", "geometry"),
        (b"ElementSpacing = 2 3 4", b"ElementSpacing = 2 3 1e5", "geometry"),
        (b"Offset = 10 20 30", b"Offset = 10 x 30", "geometry"),
        (b"Offset = 10 20 30", b"Offset = 10 20 1e30", "geometry"),
        (b"Offset = 10 20 30\n", b"Offset = 10 20 30\nOffset = 10 20 31\n", "unreadable"),
        (b"1 0 0 0 1 0 0 0 1", b"1 0 0 0 1 0 0 0 0", ("unreadable", "geometry")),
        (b"1 0 0 0 1 0 0 0 1", b"1 0 0 0 1 0 0.5 0 1", ("sheared", "unreadable")),
        (b"DimSize = 1 1 2", b"DimSize = 1 1 3", "unreadable"),
        (b"DimSize = 1 1 2", b"DimSize = 1 1 99999999999999999999", "unreadable"),
        (b"DimSize = 1 1 2", b"DimSize = 1 1 0", "unreadable"),
        (b"DimSize = 1 1 2", b"DimSize = 1 1 -2", "unreadable"),
        (b"DimSize = 1 1 2", b"DimSize = 1 2", "unreadable"),
        (b"MET_SHORT", b"MET_SHORT_ARRAY", "pixel-type"),
        (b"MET_SHORT", b"MET_OTHER", "pixel-type"),
        (
            b"ElementType = MET_SHORT",
            b"ElementType = MET_SHORT\nElementNumberOfChannels = 3",
            "several-channels",
        ),
        (b"ElementDataFile = LOCAL\n\5\0\6\0", b"", "unreadable"),
    ],
)
def test_a_metaimage_header_that_leaves_something_open_is_refused(tmp_path, line, instead, reason):
    found = reason_of(write(tmp_path / "a.mha", changed(MHA, line, instead)))
    assert found in ((reason,) if isinstance(reason, str) else reason)


@pytest.mark.parametrize(
    ("line", "instead", "reason"),
    [
        (b"space directions: (2,0,0) (0,3,0) (0,0,4)\n", b"spacings: 2 3 4\n", "no-geometry"),
        (b"space directions: (2,0,0) (0,3,0) (0,0,4)\n", b"", "no-geometry"),
        (b"space origin: (10,20,30)\n", b"", "no-geometry"),
        (b"kinds:", b'space units: "um" "um" "um"\nkinds:', "no-geometry"),
        (b"(0,0,4)", b"none", "geometry"),
        (b"(0,0,4)", b"(0,0,inf)", "geometry"),
        (b"(0,0,4)", b"(0,0,0)", ("geometry", "unreadable")),
        (b"(0,0,4)", b"(0,3,4)", "sheared"),
        (b"(0,0,4)", b"(0,0,4e9)", "geometry"),
        (b"sizes: 1 1 2", b"sizes: 1 1 3", "unreadable"),
        (b"sizes: 1 1 2", b"sizes: 1 1 4000000000000", "unreadable"),
        (b"sizes: 1 1 2", b"sizes: 1 1 -2", "unreadable"),
        (b"sizes: 1 1 2", b"sizes: 1 2", "unreadable"),
        (b"sizes: 1 1 2\n", b"", "unreadable"),
        (b"type: short", b"type: block", "pixel-type"),
        (b"encoding: raw", b"encoding: bzip2", "format"),
        (b"encoding: raw", b"encoding: gzip", "unreadable"),
        (b"encoding: raw", b"byte skip: 4\nencoding: gzip", "unreadable"),
        (b"\n\n\5\0\6\0", b"\n", "unreadable"),
    ],
)
def test_an_nrrd_header_that_leaves_something_open_is_refused(tmp_path, line, instead, reason):
    found = reason_of(write(tmp_path / "a.nrrd", changed(BINARY_NRRD, line, instead)))
    assert found in ((reason,) if isinstance(reason, str) else reason)


def test_millimetres_may_be_stated_beside_other_text(tmp_path):
    extra = b'space units: "mm" "mm" "mm"\n# a comment\nname:=Jane Doe\nkinds:'
    volume = io.read(write(tmp_path / "a.nrrd", changed(BINARY_NRRD, b"kinds:", extra)))
    assert volume.array.ravel().tolist() == [5, 6]
    raw = changed(MHA, b"NDims", b"Comment = Jane Doe\n0010|0010 = Jane Doe\nNDims")
    volume = io.read(write(tmp_path / "a.mha", changed(raw, b"Offset", b"DistanceUnits = mm\nPosition")))
    assert volume.grid.world((0, 0, 1)) == pytest.approx((-10, -20, 34))
    assert "Jane" not in repr(volume.source)


@pytest.mark.parametrize("cut", range(1, 5))
@pytest.mark.parametrize(("name", "raw"), [("a.nrrd", BINARY_NRRD), ("a.mha", MHA)])
def test_a_raw_file_that_is_cut_is_refused(tmp_path, name, raw, cut):
    with pytest.raises(InputRefused, match="truncated") as caught:
        io.read(write(tmp_path / name, raw[:-cut]))
    assert caught.value.reason == "unreadable"


@pytest.mark.parametrize(("name", "raw"), [("a.nrrd", BINARY_NRRD), ("a.mha", MHA)])
def test_bytes_after_the_voxels(tmp_path, name, raw):
    with pytest.warns(InputWarning, match="7 bytes after the last voxel"):
        assert io.read(write(tmp_path / name, raw + b"padding")).array.ravel().tolist() == [5, 6]
    assert reason_of(write(tmp_path / name, raw + bytes(5000))) == "excess"


def packed(kind, payload=b"\5\0\6\0"):
    """The same two voxels, compressed: NRRD by gzip, MetaImage by zlib."""
    if kind == "nrrd":
        return changed(BINARY_NRRD[:-4], b"raw", b"gzip"), gzip.compress(payload)
    stream = zlib.compress(payload)
    fields = f"CompressedData = True\nCompressedDataSize = {len(stream)}".encode()
    return changed(MHA[:-4], b"CompressedData = False", fields), stream


@pytest.mark.parametrize("kind", ["nrrd", "mha"])
class TestPacked:
    def test_reads(self, tmp_path, kind):
        assert io.read(write(tmp_path / f"a.{kind}", b"".join(packed(kind)))).array.ravel().tolist() == [5, 6]

    def test_cut_is_refused(self, tmp_path, kind):
        header, stream = packed(kind)
        for length in range(1, len(stream)):
            path = write(tmp_path / f"a.{kind}", header + stream[:length])
            assert reason_of(path) == "unreadable"

    def test_a_wrong_checksum_is_refused(self, tmp_path, kind):
        header, stream = packed(kind)
        damaged = bytearray(stream)
        damaged[-5 if kind == "nrrd" else -1] ^= 1  # gzip ends with CRC and length, zlib with Adler-32
        with pytest.raises(InputRefused, match="checksum") as caught:
            io.read(write(tmp_path / f"a.{kind}", header + bytes(damaged)))
        assert caught.value.reason == "unreadable"

    def test_fewer_bytes_than_promised(self, tmp_path, kind):
        path = write(tmp_path / f"a.{kind}", b"".join(packed(kind, b"\5\0\6")))
        assert reason_of(path) == "unreadable"

    def test_a_bomb_is_refused_without_unpacking_it(self, tmp_path, kind):
        path = write(tmp_path / f"a.{kind}", b"".join(packed(kind, bytes(64 << 20))))
        assert reason_of(path) == "excess"

    def test_gigabytes_of_one_value_are_a_bomb(self, tmp_path, kind):
        # 2 GiB promised by 2 MiB, and not looked at any further.
        header, _ = packed(kind)
        sizes = (b"sizes: 1 1 2", b"sizes: 1024 1024 1024")
        if kind == "mha":
            sizes = (b"DimSize = 1 1 2", b"DimSize = 1024 1024 1024")
        path = write(tmp_path / f"a.{kind}", changed(header, *sizes) + bytes((2 << 20) + 50_000))
        assert reason_of(path) == "bomb"


@pytest.mark.parametrize("outside", ["../a.raw", "/etc/hosts", "sub/../../a.raw", "C:\\a.raw", "..\\a.raw"])
def test_a_data_file_elsewhere_is_refused(tmp_path, outside):
    (tmp_path / "in").mkdir()
    write(tmp_path / "a.raw", b"\5\0\6\0")
    path = write(tmp_path / "in/a.mhd", changed(MHA[:-4], b"LOCAL", outside.encode()))
    assert reason_of(path) == "escapes"
    header = changed(BINARY_NRRD[:-5], b"encoding", f"data file: {outside}\nencoding".encode())
    assert reason_of(write(tmp_path / "in/a.nhdr", header)) == "escapes"
    header = changed(BINARY_NRRD[:-5], b"raw", f"raw\ndata file: LIST\n{outside}".encode())
    assert reason_of(write(tmp_path / "in/b.nhdr", header)) == "escapes"


def test_voxels_in_several_files(tmp_path):
    for n, value in enumerate((5, 6), 1):
        write(tmp_path / f"s{n:02}.raw", bytes([value, 0]))
    names = {
        "list.mhd": changed(MHA[:-4], b"LOCAL", b"LIST\ns01.raw\ns02.raw"),
        "pattern.mhd": changed(MHA[:-4], b"LOCAL", b"s%02d.raw 1 2 1"),
        "list.nhdr": changed(BINARY_NRRD[:-5], b"raw", b"raw\ndata file: LIST\ns01.raw\ns02.raw"),
        "pattern.nhdr": changed(BINARY_NRRD[:-5], b"raw", b"raw\ndata file: s%02d.raw 1 2 1"),
    }
    for name, raw in names.items():
        assert io.read(write(tmp_path / name, raw)).array.ravel().tolist() == [5, 6], name
    (tmp_path / "s02.raw").unlink()
    os.mkfifo(tmp_path / "s02.raw")  # reading it would wait forever
    for name in names:
        assert reason_of(tmp_path / name) == "not-a-file"
    write(tmp_path / "none.mhd", changed(MHA[:-4], b"LOCAL", b"LIST"))
    assert reason_of(tmp_path / "none.mhd") == "unreadable"


def test_voxels_as_text(tmp_path):
    raw = changed(MHA[:-4], b"BinaryData = True", b"BinaryData = False") + b"5 6\n"
    assert io.read(write(tmp_path / "a.mha", raw)).array.ravel().tolist() == [5, 6]
    short = NRRD.format(space="LPS").replace("5 6", "5")
    assert reason_of(write(tmp_path / "a.nrrd", short.encode())) == "unreadable"


def test_a_sheared_grid_is_squared_when_it_is_almost_square(tmp_path):
    # 4 mm x 0.01 = 0.04 mm apart at the far end, shared between the two ends: 0.02 mm.
    raw = changed(BINARY_NRRD, b"(0,0,4)", b"(0,0.04,4)")
    with pytest.warns(InputWarning, match="squared"):
        volume = io.read(write(tmp_path / "a.nrrd", raw))
    direction = volume.grid.direction
    assert np.allclose(direction.T @ direction, np.eye(3), atol=1e-12)


def test_more_than_memory_holds_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(memory_budget, "available_bytes", lambda: 10)
    path = write(tmp_path / "a.mha", MHA)
    with pytest.raises(InputRefused, match="memory") as caught:
        io.read(path)
    assert caught.value.reason == "too-large"


def test_a_header_that_can_be_read_in_two_ways_is_refused(tmp_path, monkeypatch):
    facts = {"size": [2, 1, 1], "components": 1}
    monkeypatch.setattr(client, "call", lambda *_, **__: (facts, None))
    assert reason_of(write(tmp_path / "a.mha", MHA)) == "unreadable"


def test_a_data_file_that_stops_being_readable(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mha", MHA)

    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(client, "call", forbidden)
    assert reason_of(path) == "permission"


def test_voxels_of_another_width_than_promised_are_refused(tmp_path, monkeypatch):
    facts = {"size": [1, 1, 2], "components": 1, "spacing": [2, 3, 4], "origin": [0, 0, 0]}
    facts["direction"] = np.eye(3).ravel().tolist()
    monkeypatch.setattr(client, "call", lambda *_, **__: (facts, np.zeros((2, 1, 1), np.int32)))
    with pytest.raises(InputRefused, match="int32 voxels, but 2 bytes each by the header"):
        io.read(write(tmp_path / "a.mha", MHA))


def test_bool_and_float16_are_written_as_wider_types(tmp_path):
    for dtype in (bool, np.float16):
        volume = Volume(VOLUME.array.astype(dtype), GRID)
        assert np.array_equal(io.read(io.write(volume, tmp_path / "a.mha")).array, volume.array)


def test_packed_data_of_several_members_and_of_none(tmp_path):
    header, _ = packed("nrrd")
    members = gzip.compress(b"\5\0") + gzip.compress(b"\6\0")
    assert gzip_stream.unpacked_size(write(tmp_path / "m", members), 0, 100) == 4
    assert reason_of(write(tmp_path / "a.nrrd", header)) == "unreadable"


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nhdr", ".mhd"])
@pytest.mark.parametrize(("most_bytes", "highest"), [(0, 1), (20, 1), (100, 1), (1500, 1000), (4000, 1000)])
def test_a_file_that_cannot_be_written_whole_is_an_error(tmp_path, suffix, most_bytes, highest):
    import resource

    # 16 kB of noise, or a few hundred bytes that ITK writes only when it closes the file.
    numbers = np.random.default_rng(0).integers(0, highest, (20, 20, 20)).astype(np.int16)
    scan = Volume(numbers, Grid.from_spacing(numbers.shape, (1.0, 2.0, 3.0)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, limits[1]))
    try:
        with pytest.raises(ResourceError) as refused:
            scan.save(tmp_path / f"scan{suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert refused.value.reason == "disk"
    assert list(tmp_path.iterdir()) == []
    assert np.array_equal(io.read(scan.save(tmp_path / f"scan{suffix}")).array, numbers)
