"""Requests for masks: of a scan by its id, of an uploaded one, or of that of a session."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from medseg.errors import UsageError
from medseg.serving.loaded_models import RESULTS, Segmentation, result_file, segmented
from medseg.serving.service import Service
from medseg.serving.uploads import Form, json_object

_OUTPUTS = ("all", "image", "json", "dicom_seg")
_DICOM = "application/dicom"


async def infer(service: Service, request: Request) -> Response:
    """The mask of a scan, in the form that ``output`` asks for.

    Raises:
        UsageError: no such model, scan, session or form of output; no scan is named (``params``).
        InputRefused: the scan cannot be read or trusted, or the upload is too large or too slow.
        ResourceError: the queue is full (``server-busy``).
    """
    model = service.models.named(request.path_params["model"])
    output = request.query_params.get("output") or "all"
    if output not in _OUTPUTS:
        raise UsageError(
            f"no output {output[:40]!r}", remedy=f"choose one of {', '.join(_OUTPUTS)}", reason="params"
        )
    service.cases.check()
    async with service.upload_folder() as folder:
        form = await service.receive(request, folder)
        params = json_object(form.fields.get("params", ""))
        suffix = str(params.get("result_extension") or RESULTS[0])
        if suffix not in RESULTS:
            raise UsageError(
                f"cannot write masks as {suffix[:40]!r}",
                remedy=f"ask for {' or '.join(RESULTS)}",
                reason="params",
            )
        scan, image = _scan_of(service, request, form)
        name = f"{secrets.token_hex(8)}{'.dcm' if output == 'dicom_seg' else suffix}"

        def work() -> tuple[Segmentation, bytes]:
            result = segmented(model, scan)
            if output == "json":
                return result, b""
            return result, result_file(result.mask, folder, name).read_bytes()

        result, content = await service.cases.run(work, is_gone=request.is_disconnected)
    _remember(service, image, result)
    facts = {**result.params(), "warnings": [service.redact(text) for text in result.notices]}
    if output == "json":
        return JSONResponse(facts)
    if output == "all":
        return _multipart(facts, name, content)
    kind = _DICOM if output == "dicom_seg" else "application/octet-stream"
    return Response(
        content, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )


def _scan_of(service: Service, request: Request, form: Form) -> tuple[Path, str]:
    """The scan to segment, and its id; the id is empty for a scan that is not kept."""
    upload = form.file("file")
    if upload is not None:
        return upload.path, ""
    session = request.query_params.get("session_id", "")
    if session:
        return service.sessions.get(session).scan, ""
    image = request.query_params.get("image", "")
    if not image:
        raise UsageError(
            "no scan is named",
            remedy="give image=ID or session_id=ID, or send the scan as file",
            reason="params",
        )
    return service.data.image(image).path, image


def _remember(service: Service, image: str, result: Segmentation) -> None:
    if image:
        service.originals[image] = result.digest
        service.order.segmented(image, result.entropy_bits)


def _multipart(params: dict[str, object], name: str, content: bytes) -> Response:
    boundary = f"medseg{secrets.token_hex(16)}"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="params"\r\n'
        f"Content-Type: application/json\r\n\r\n{json.dumps(params)}\r\n"
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return Response(body, media_type=f"multipart/form-data; boundary={boundary}")
