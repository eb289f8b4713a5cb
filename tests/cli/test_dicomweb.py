"""A PACS (Orthanc) as the source of scans and the place of masks; the guide's commands against it."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from support.batches import WorkersHere, chest
from support.commands import invoke
from support.dicom_masks import errors_of_dciodvfy
from support.orthanc import PASSWORD, USER, Orthanc
from support.series import edit

import medseg
from medseg.batch_processing import runner
from medseg.cli.early_checks import check_store
from medseg.errors import InputRefused, UsageError
from medseg.io.dicomweb import address_list
from medseg.io.dicomweb.address import DicomwebAddress
from medseg.io.dicomweb.retrieval import list_study

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "pacs.md"
EXAMPLE = "dicomweb://pacs.example/dicom-web/studies/1.2.3"


@pytest.fixture(scope="module")
def series(tmp_path_factory) -> list[Path]:
    """Twenty series, each of a patient of its own."""
    folder = tmp_path_factory.mktemp("series")
    return [medseg.write_dicom_series(chest(number), folder / f"{number:02d}") for number in range(20)]


@pytest.fixture(scope="module")
def storage(tmp_path_factory, series) -> tuple[Path, list[DicomwebAddress]]:
    """A server's folder with all series, and their places on it."""
    server = Orthanc(tmp_path_factory.mktemp("orthanc"))
    server.start()
    addresses = server.put(*series)
    server.stop()
    return server.folder, addresses


@pytest.fixture
def server(storage, monkeypatch, tmp_path):
    orthanc = Orthanc(storage[0])
    orthanc.start()
    monkeypatch.setenv("MEDSEG_DICOMWEB_USER", USER)
    monkeypatch.setenv("MEDSEG_DICOMWEB_PASSWORD", PASSWORD)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    yield orthanc
    orthanc.kill()


@pytest.fixture
def here(monkeypatch):
    """Batches run in the process of the test."""
    monkeypatch.setattr(runner, "_processes", lambda config, resources, cases: WorkersHere(config, cases))


def places(server: Orthanc, addresses: list[DicomwebAddress]) -> list[str]:
    """The addresses, at the port that the server has now."""
    return [
        str(DicomwebAddress("http", f"127.0.0.1:{server.port}", "/dicom-web", a.study, a.series))
        for a in addresses
    ]


def texts(folder: Path) -> str:
    """Names and contents of all files below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return "\n".join(f"{path}\n{path.read_bytes().decode('latin-1')}" for path in files)


def test_series_in_segmentation_out_and_again_after_a_restart(server, storage, series, tmp_path):
    (place,) = places(server, storage[1][:1])
    out, err = invoke("segment", place, "--store", "--model", "threshold")
    (stored,) = re.findall(r"stored (dicomweb\S+)", err)
    address = DicomwebAddress.parse(stored)
    invoke("segment", place, "-o", "lungs.nii.gz", "--model", "threshold")
    truth = medseg.segment(series[0], model="threshold")

    def check(copy: Path) -> None:
        (data,) = server.get(address)
        data.save_as(copy)
        assert errors_of_dciodvfy(copy) == []
        mask = medseg.convert_mask(copy, copy.with_suffix(".nii.gz"), scan=series[0])
        np.testing.assert_array_equal(mask.array, truth.array)

    np.testing.assert_array_equal(medseg.read_mask("lungs.nii.gz", truth.labels).array, truth.array)
    check(tmp_path / "first.dcm")
    server.stop()
    server.start()
    check(tmp_path / "again.dcm")
    invoke("segment", place, "--store", "--model", "threshold")  # the same mask, which is there once
    check(tmp_path / "third.dcm")
    seg = [
        one for one in server.client.search_for_series(address.study) if one["00080060"]["Value"] == ["SEG"]
    ]
    assert len(seg) == 1
    assert PASSWORD not in texts(tmp_path) + out + err


def test_a_structure_set_comes_back_as_it_was_sent(server, storage, series):
    (place,) = places(server, storage[1][1:2])
    _, err = invoke(
        *("segment", place, "-o", "lungs.dcm", "--format", "rtstruct", "--store", "--model", "threshold")
    )
    (stored,) = re.findall(r"stored (dicomweb\S+)", err)
    (data,) = server.get(DicomwebAddress.parse(stored))
    assert data == pydicom.dcmread("lungs.dcm")
    data.save_as("back.dcm")
    scan = medseg.read(series[1])
    truth = medseg.segment(scan, model="threshold")
    masks = [medseg.read_mask(name, truth.labels, scan) for name in ("lungs.dcm", "back.dcm")]
    assert masks[0].array.any()
    np.testing.assert_array_equal(*(mask.array for mask in masks))


def test_a_study_with_more_series_than_the_server_lists_is_refused(tmp_path, monkeypatch):
    for name, text in (("NO_PROXY", "127.0.0.1"), ("MEDSEG_DICOMWEB_USER", USER)):
        monkeypatch.setenv(name, text)
    monkeypatch.setenv("MEDSEG_DICOMWEB_PASSWORD", PASSWORD)
    folders = [medseg.write_dicom_series(chest(), tmp_path / str(number)) for number in range(1, 6)]
    for number, folder in enumerate(folders, start=1):
        edit(folder, lambda ds, _, number=number: set_uids(ds, number))
    server = Orthanc(tmp_path / "orthanc")
    server.start()
    addresses = server.put(*folders)
    study = replace(addresses[0], series="")
    assert list_study(study) == tuple(addresses)
    server.stop()
    limited = Orthanc(tmp_path / "orthanc", LimitFindResults=2)
    limited.start()
    try:
        with pytest.raises(InputRefused, match="of the 5 series") as refused:
            list_study(replace(study, host=f"127.0.0.1:{limited.port}"))
        assert refused.value.reason == "dicomweb-incomplete"
    finally:
        limited.kill()


def set_uids(ds: pydicom.Dataset, number: int) -> None:
    """Makes a slice one of the series of a study."""
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", f"1.2.3.{number}"
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}.{ds.InstanceNumber}"


def test_a_batch_is_completed_after_the_server_was_killed_in_the_middle(server, storage, tmp_path, request):
    wanted = places(server, storage[1])
    Path("series.txt").write_text("# twenty\n" + "\n".join(wanted) + "\n\n")
    cases: list[dict] = []

    def show(event: dict) -> None:
        if event["event"] == "case":
            cases.append(event)
            if len(cases) == 4:
                server.kill()

    def run(**more) -> medseg.BatchSummary:
        return medseg.batch(
            "series.txt",
            "out",
            model="threshold",
            resources=medseg.BatchResources(workers=1),
            options=medseg.BatchOptions(dicom="dicom-seg", store=True),
            **more,
        )

    first = run(progress=medseg.BatchMonitor(show=show))
    table = pd.read_csv("out/results.csv", index_col="case")
    failed = table[table.status == "failed"]
    assert first.done >= 3
    assert len(failed) >= 10
    assert first.done + len(failed) == 20
    assert set(failed.reason) <= {"dicomweb-unreachable", "dicomweb-interrupted"}
    assert sorted(table.input) == sorted(wanted)
    assert not list(Path("out").rglob("medseg-dicomweb*"))

    server.start()
    request.getfixturevalue("here")  # worker processes have been seen; these runs are quicker without
    second = run(resume=True, progress=False)
    assert (second.done, second.skipped, second.failed) == (20 - first.done, first.done, 0)
    table = pd.read_csv("out/results.csv", index_col="case")
    assert set(table.status) == {"done"}
    assert len(table) == 20
    for address in storage[1][::6]:
        modalities = [one["00080060"]["Value"][0] for one in server.client.search_for_series(address.study)]
        assert sorted(modalities) == ["CT", "SEG"]
    third = run(resume=True, progress=False)
    assert (third.done, third.skipped) == (0, 20)
    assert PASSWORD not in texts(tmp_path / "out")
    assert "Authorization" not in texts(tmp_path / "out")


def test_wrong_passwords_are_refused_and_named_nowhere(server, storage, here, monkeypatch, tmp_path):
    monkeypatch.setenv("MEDSEG_DICOMWEB_PASSWORD", "wrong-canary")
    (place,) = places(server, storage[1][:1])
    for arguments in (("segment", place, "-o", "a.nii.gz"), ("batch", place, "-o", "out")):
        shown = "".join(
            invoke(*arguments, "--model", "threshold", code=5 if arguments[0] == "segment" else 1)
        )
        assert "dicomweb-unauthorized" in shown or "HTTP 401" in shown
        assert "canary" not in shown
    assert "canary" not in texts(tmp_path)
    hidden = place.replace("//", f"//{USER}:{PASSWORD}@")
    Path("list.txt").write_text(hidden)
    for arguments in (
        ("segment", hidden, "-o", "b.nii.gz"),
        ("segment", hidden, "--store", "--json"),
        ("batch", hidden, "-o", "new"),
        ("batch", "list.txt", "-o", "new"),
    ):
        shown = "".join(invoke(*arguments, "--model", "threshold", code=2))
        assert PASSWORD not in shown
        assert "MEDSEG_DICOMWEB_PASSWORD" in shown
    assert not Path("new").exists()


def test_store_needs_a_server_and_a_dicom_mask(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chest().save(tmp_path / "chest.nii.gz")
    for arguments in (
        ("segment", "chest.nii.gz", "--store"),
        ("segment", f"{EXAMPLE}/series/1.2.4", "-o", "x.nii.gz", "--store"),
        ("batch", "chest.nii.gz", "-o", "out", "--store"),
        ("batch", "chest.nii.gz", "-o", "out", "--store", "--dicom", "dicom-seg"),
    ):
        assert "--store" in invoke(*arguments, code=2)[1]


def test_addresses_of_two_servers_are_not_one_batch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("two.txt").write_text(f"{EXAMPLE}/series/1.2.4\ndicomweb://other/studies/1/series/2\n")
    assert "2 servers" in invoke("batch", "two.txt", "-o", "out", code=2)[1]
    Path("bad.txt").write_text(f"{EXAMPLE}/series/1.2.4\n\nchest.nii.gz\n")
    assert "bad.txt, line 3" in invoke("batch", "bad.txt", "-o", "out", code=2)[1]


def test_every_command_of_the_guide_runs(server, storage, here):
    (block,) = re.findall(r"```bash\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    commands = [line.partition("#")[0].strip() for line in block.splitlines() if line.startswith("medseg ")]
    assert {command.split()[1] for command in commands} == {"segment", "batch", "report"}
    place = places(server, storage[1][5:6])[0]
    Path("series.txt").write_text("\n".join(places(server, storage[1][6:8])))
    study = place.partition("/series/")[0]
    for command in commands:
        real = command.replace(f"{EXAMPLE}/series/1.2.4", place).replace(EXAMPLE, study)
        words = shlex.split(real)[1:]
        invoke(*words, *(["--model", "threshold"] if words[0] != "report" else []))
    assert Path("lungs.nii.gz").is_file()
    assert Path("lungs.dcm").is_file()
    assert len(list(Path("segmented/masks").glob("*.nii.gz"))) == 1
    assert len(list(Path("overnight/dicom").glob("*.dcm"))) == 2


def test_masks_of_several_series_may_be_stored_from_a_folder(tmp_path):
    scans = [Path(f"{EXAMPLE}/series/1.2.{number}") for number in (4, 5)]
    check_store(scans, f"{tmp_path}/", "dicom-seg")
    for output, form in ((f"{tmp_path}/", None), (str(tmp_path / "x.nii.gz"), "dicom-seg")):
        with pytest.raises(UsageError, match="needs a DICOM mask"):
            check_store(scans, output, form)


def test_a_list_of_addresses_that_is_too_long_is_refused_and_not_cut(tmp_path, monkeypatch):
    (tmp_path / "list.txt").write_text(f"{EXAMPLE}/series/1.2.4\n" * 2)
    monkeypatch.setattr(address_list, "_MOST", 60)
    with pytest.raises(UsageError, match="million characters") as refused:
        address_list.listed_series(tmp_path / "list.txt")
    assert refused.value.reason == "dicomweb-address"
