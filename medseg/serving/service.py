"""What the requests of a server share: models, scans, labels, queues."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from starlette.requests import Request

from medseg.errors import ResourceError
from medseg.serving.access_control import TokenCheck
from medseg.serving.background_training import BackgroundTraining
from medseg.serving.case_queue import CaseQueue
from medseg.serving.data_folder import DataFolder
from medseg.serving.limits import Limits
from medseg.serving.loaded_models import LoadedModels
from medseg.serving.next_sample import NextSample
from medseg.serving.refusals import Redaction
from medseg.serving.sessions import Sessions
from medseg.serving.submissions import Submissions
from medseg.serving.uploads import Form, receive_form


@dataclass
class Service:
    """The state of a server.

    Attributes:
        models: The loaded models.
        data: The scans.
        submissions: The labels of readers.
        order: Chooses the next case.
        training: The training in the background.
        temporary: Folder that is removed when the server ends.
        check: The token.
        redact: Removes paths from texts for clients.
        limits: What a client may use.
        sessions: The sessions of clients.
        cases: The queue for the device.
        files: The queue for reading and writing files.
        originals: The digest of the model whose mask clients got last, by the id of the scan.
        log: The last requests, without the names of scans.
    """

    models: LoadedModels
    data: DataFolder
    submissions: Submissions
    order: NextSample
    training: BackgroundTraining
    temporary: Path
    check: TokenCheck
    redact: Redaction
    limits: Limits = field(default_factory=Limits)
    originals: dict[str, str] = field(default_factory=dict)
    log: deque[str] = field(default_factory=lambda: deque(maxlen=1000))

    def __post_init__(self) -> None:
        self.sessions = Sessions(self.limits)
        self.cases = CaseQueue(self.limits.waiting)
        self.files = CaseQueue(self.limits.waiting)
        self._receiving = asyncio.Semaphore(self.limits.uploads)

    @asynccontextmanager
    async def upload_folder(self) -> AsyncIterator[Path]:
        """A folder for the files of one request, removed afterwards unless it was renamed."""
        folder = Path(tempfile.mkdtemp(dir=self.temporary))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def receive(self, request: Request, folder: Path, *, dicom: bool = False) -> Form:
        """The form of a request, as :func:`medseg.serving.uploads.receive_form`.

        Raises:
            ResourceError: too many requests are received already (``server-busy``).
        """
        if self._receiving.locked():
            raise ResourceError(
                f"{self.limits.uploads} uploads are being received already",
                remedy="ask again in a few seconds",
                reason="server-busy",
            )
        async with self._receiving:
            return await receive_form(request, folder, self.limits, dicom=dicom)
