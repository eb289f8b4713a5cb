"""Requests for scans and labels: lists, downloads, uploads, and submissions of readers."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from medseg.errors import UsageError
from medseg.io import formats
from medseg.serving.data_folder import ServedImage
from medseg.serving.next_sample import STRATEGIES
from medseg.serving.service import Service
from medseg.serving.submissions import FINAL, Submission
from medseg.serving.uploads import Form, UploadedFile, body_chunks, json_object

_INFO_FIELDS = ("reader", "date", "version", "submitted_sha256", "original_sha256", "scan_sha256")


def status(service: Service) -> dict[str, object]:
    """How many scans there are, and how many have a final label."""
    ids = service.data.ids()
    tags: dict[str, int] = {}
    for name in ids:
        for tag in service.submissions.of(name):
            tags[tag] = tags.get(tag, 0) + 1
    completed = sum(service.submissions.newest(name) is not None for name in ids)
    return {"total": len(ids), "completed": completed, "label_tags": tags, "train": []}


async def datastore(service: Service, request: Request) -> Response:
    """The scans with their labels (``output=all``), or how many there are."""
    if request.query_params.get("output") != "all":
        return JSONResponse(status(service))
    objects = {}
    for name in service.data.ids():
        image = service.data.image(name)
        labels = {tag: _label_facts(row) for tag, row in service.submissions.of(name).items()}
        objects[name] = {"image": {"ext": _download_suffix(image), "info": {}}, "labels": labels}
    return JSONResponse({"name": "medseg", "description": "", "objects": objects})


async def image(service: Service, request: Request) -> Response:
    """The file of a scan."""
    found = service.data.image(request.query_params.get("image", ""))
    path = await service.files.run(lambda: service.data.download(found), is_gone=request.is_disconnected)
    return _file(path, f"{found.id}{_download_suffix(found)}")


async def image_info(service: Service, request: Request) -> Response:
    """What is known about a scan."""
    found = service.data.image(request.query_params.get("image", ""))
    return JSONResponse({"name": f"{found.id}{_download_suffix(found)}"})


async def add_image(service: Service, request: Request) -> Response:
    """Keeps an uploaded scan under its id."""
    async with service.upload_folder() as folder:
        form = await service.receive(request, folder)
        upload = _sent(form, "file")
        name = request.query_params.get("image") or formats.stem(Path(Path(upload.name).name))
        added = await service.files.run(lambda: service.data.add(name, upload))
    return JSONResponse({"image": added.id})


async def label(service: Service, request: Request) -> Response:
    """The newest label of a scan with a tag."""
    row = _row(service, request)
    return _file(service.submissions.path(row), f"{row.image}.nii.gz")


async def label_info(service: Service, request: Request) -> Response:
    """The origin of the newest label of a scan with a tag."""
    return JSONResponse(_label_facts(_row(service, request))["info"])


async def add_label(service: Service, request: Request) -> Response:
    """Keeps a label that a reader submits as a new version, and writes the manifest of all newest ones."""
    found = service.data.image(request.query_params.get("image", ""))
    tag = service.submissions.check(request.query_params.get("tag") or FINAL)
    async with service.upload_folder() as folder:
        form = await service.receive(request, folder)
        upload = _sent(form, "label", "file")
        params = json_object(form.fields.get("params", ""))
        model = next(iter(service.models.all().values()))
        if isinstance(params.get("model"), str):
            model = service.models.named(str(params["model"]))

        def work() -> Submission:
            facts = {
                "reader": str(params.get("client_id") or ""),
                "original_sha256": service.originals.get(found.id, ""),
                "scan_sha256": service.data.digest(found),
            }
            names = _names(params)
            row = service.submissions.add(
                found, upload, tag=tag, names=names, method=model.method, facts=facts
            )
            images = [service.data.image(name) for name in service.data.ids()]
            service.submissions.write_manifest(images, model.labels)
            return row

        row = await service.files.run(work)
    return JSONResponse({"image": found.id, "label": found.id, "tag": tag, "version": row.version})


async def next_sample(service: Service, request: Request) -> Response:
    """The case to annotate next: an empty object if all have a final label."""
    strategy = request.path_params["strategy"]
    if strategy not in STRATEGIES:
        raise UsageError(
            f"no strategy {strategy[:40]!r}", remedy=f"choose one of {', '.join(STRATEGIES)}", reason="params"
        )
    body = b"".join([part async for part in body_chunks(request, service.limits, service.limits.field_bytes)])
    client = str(json_object(body).get("client_id") or "")
    images = [service.data.image(name) for name in service.data.ids()]
    chosen = service.order.choose(
        [each for each in images if service.submissions.newest(each.id) is None], strategy, client
    )
    if chosen is None:
        return JSONResponse({})
    return JSONResponse(await service.files.run(lambda: _sample(service, chosen)))


def _sample(service: Service, chosen: ServedImage) -> dict[str, object]:
    path = service.data.download(chosen)
    served = ServedImage(f"download of {chosen.id}", path, chosen.patient)
    digest = service.data.digest(chosen if path == chosen.path else served)
    return {
        "id": chosen.id,
        "name": f"{chosen.id}{_download_suffix(chosen)}",
        "checksum": f"SHA256:{digest}",
        "entropy_bits": service.order.entropy_bits.get(chosen.id),
    }


def _names(params: dict[str, object]) -> dict[int, str]:
    """The name of each value in a submitted label map, from ``label_info``.

    3D Slicer numbers the voxels from 1 in the order of the list, and ``idx`` by the places of the segments
    before those called background were left out; so both must say the same.
    """
    rows = params.get("label_info") or []
    pairs = []
    for number, row in enumerate(rows if isinstance(rows, list) else [None], start=1):
        name, idx = (row.get("name"), row.get("idx", number)) if isinstance(row, dict) else (None, None)
        if not isinstance(name, str) or not name.strip() or not isinstance(idx, int) or not 0 < idx < 1 << 16:
            raise _wrong_names("label_info is not a list of objects with name and idx")
        pairs.append((idx, name.strip()[:200]))
    if any(";" in name or "=" in name or not name.isprintable() for _, name in pairs):
        raise _wrong_names("the name of a segment contains ';', '=' or a control character")
    if len({name for _, name in pairs}) < len(pairs) or len({idx for idx, _ in pairs}) < len(pairs):
        raise _wrong_names("two segments have the same name or number")
    places = [idx for idx, _ in pairs]
    if places != sorted(places) or (places and places != list(range(1, len(places) + 1))):
        raise _wrong_names("the numbers of the segments are not 1, 2, 3, ...")
    return dict(pairs)


def _wrong_names(problem: str) -> UsageError:
    return UsageError(
        problem, remedy="remove segments called background, and give each another name", reason="params"
    )


def _sent(form: Form, *fields: str) -> UploadedFile:
    upload = form.file(*fields)
    if upload is None:
        raise UsageError(
            f"the form has no file {fields[0]}", remedy=f"send the file as {fields[0]}", reason="upload-form"
        )
    return upload


def _row(service: Service, request: Request) -> Submission:
    query = request.query_params
    name = query.get("label") or query.get("image") or ""
    row = service.submissions.newest(service.data.image(name).id, query.get("tag") or FINAL)
    if row is None:
        raise UsageError(
            "the scan has no label of this tag",
            remedy="GET /datastore/?output=all lists the labels",
            reason="not-labelled",
        )
    return row


def _label_facts(row: Submission) -> dict[str, object]:
    info = {name: getattr(row, name) for name in _INFO_FIELDS}
    return {"ext": ".nii.gz", "info": {**info, "params": {"label_names": row.values}}}


def _download_suffix(image: ServedImage) -> str:
    ending = formats.ending(image.path) if image.path.is_file() else None
    return ending if ending in (".nii.gz", ".nii", ".nrrd", ".mha") else ".nii.gz"


def _file(path: Path, name: str) -> FileResponse:
    safe = quote(name)
    return FileResponse(
        path,
        media_type="application/octet-stream",
        headers={"Content-Disposition": f"attachment; filename*=utf-8''{safe}"},
    )
