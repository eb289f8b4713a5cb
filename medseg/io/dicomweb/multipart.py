"""The parts of a ``multipart/related`` body as it arrives (RFC 2046), without holding a whole part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

_MOST_HEADER_BYTES = 16 << 10


class BodyError(ValueError):
    """The body is not a multipart message."""


class BodyCut(BodyError):
    """The body ends before its last boundary."""


def parts(chunks: Iterable[bytes], boundary: bytes) -> Iterator[bytes | None]:
    """The bytes of all parts in order; None comes before the first bytes of each part.

    Args:
        chunks: The body.
        boundary: The boundary that its header announces.

    Raises:
        BodyError: it has no such boundary, or headers without an end.
        BodyCut: it ends too early.
    """
    mark = b"\r\n--" + boundary
    data = bytearray(b"\r\n")  # the first boundary may stand at the very beginning
    in_part = in_headers = found = False
    for chunk in chunks:
        data += chunk
        while True:
            if in_headers:
                if data.startswith(b"--"):  # the last boundary
                    return
                end = data.find(b"\r\n\r\n")
                if end < 0:
                    if len(data) > _MOST_HEADER_BYTES:
                        raise BodyError("the headers of a part have no end")
                    break
                del data[: end + 4]
                in_headers, in_part = False, True
                yield None
            at = data.find(mark)
            # What may be the beginning of a boundary stays until more has arrived.
            known = at if at >= 0 else max(0, len(data) - len(mark) + 1)
            if in_part and known:
                yield bytes(data[:known])
            del data[:known]
            if at < 0:
                break
            del data[: len(mark)]
            in_headers, in_part, found = True, False, True
    raise (
        BodyCut("the body ends before its last boundary") if found else BodyError("the body has no boundary")
    )
