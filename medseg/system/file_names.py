"""Names of labels and cases as parts of file names."""

from __future__ import annotations

import hashlib
import re

# Path separators, characters that Windows or macOS do not allow, and control characters.
_RESERVED = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f]+')
_DIGEST_LENGTH = 8


def file_name(text: str, *, most_bytes: int = 180) -> str:
    """The text as a part of a file name: unchanged if it is safe, otherwise with a digest of the original.

    Path separators and other unsafe characters become ``_``, leading and trailing dots and spaces are
    removed, and long texts are cut. The digest keeps names apart that would become equal.

    >>> file_name("right_lung"), file_name("GTV/CTV")
    ('right_lung', 'GTV_CTV-1f1a714c')

    Args:
        text: Any text, such as the name of a label.
        most_bytes: Largest length in UTF-8; the default leaves room for a case id's rest and a suffix.
    """
    safe = _RESERVED.sub("_", text).strip(". ")
    if safe == text and safe and len(safe.encode()) <= most_bytes:
        return text
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:_DIGEST_LENGTH]
    room = most_bytes - _DIGEST_LENGTH - 1
    cut = safe.encode(errors="replace")[:room].decode(errors="ignore")
    return f"{cut}-{digest}" if cut else digest
