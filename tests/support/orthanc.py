"""Orthanc, a free PACS, on this machine; tests skip without it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pydicom
import pytest
import requests
from dicomweb_client.web import DICOMwebClient

from medseg.io.dicomweb.address import DicomwebAddress

USER, PASSWORD = "reader", "pacs-passw0rd-canary"
_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


class Orthanc:
    """A server with its storage in ``folder``, which survives a restart.

    Args:
        folder: Its folder.
        more: Further settings of Orthanc.

    Attributes:
        port: Its port on 127.0.0.1.
        process: Its process, while it runs.
    """

    def __init__(self, folder: Path, **more: object) -> None:
        program = shutil.which("Orthanc")
        if program is None or not _PLUGIN.exists():
            pytest.skip("Orthanc is not installed: apt-get install orthanc orthanc-dicomweb")
        self.folder, self._program = folder, program
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "Name": "tests",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "HttpPort": self.port,
            "RemoteAccessAllowed": False,
            "DicomServerEnabled": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD},
            "Plugins": [str(_PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            **more,
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of its DICOMweb service."""
        return f"http://127.0.0.1:{self.port}/dicom-web"

    @property
    def client(self) -> DICOMwebClient:
        """A client that is not medseg's."""
        session = requests.Session()
        session.trust_env = False
        session.auth = (USER, PASSWORD)
        return DICOMwebClient(self.url, session=session)

    def start(self) -> None:
        """Starts it, and returns when it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._program, str(self.folder / "orthanc.json")], stdout=log, stderr=log
            )
        for _ in range(6000):
            assert self.process.poll() is None, (self.folder / "log").read_text()
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1):
                    return
            except OSError:
                time.sleep(0.05)
        raise AssertionError("Orthanc does not answer")

    def kill(self) -> None:
        """Ends it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """Ends it as a service manager does."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def put(self, *folders: Path) -> list[DicomwebAddress]:
        """Stores the series of each folder, and returns their addresses."""
        addresses = []
        for folder in folders:
            data = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
            self.client.store_instances(data)
            place = data[0].StudyInstanceUID, data[0].SeriesInstanceUID
            addresses.append(
                DicomwebAddress("http", f"127.0.0.1:{self.port}", "/dicom-web", *map(str, place))
            )
        return addresses

    def get(self, address: DicomwebAddress) -> list[pydicom.Dataset]:
        """The objects of a series."""
        return self.client.retrieve_series(address.study, address.series)
