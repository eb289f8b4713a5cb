"""The viewer in a browser, served on this machine only."""

from __future__ import annotations

import tempfile
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medseg.io.foreign_images import MaskLike, ScanLike, as_volume
from medseg.io.label_maps import notify_of_labels
from medseg.io.read_options import DEFAULT_OPTIONS, ReadOptions
from medseg.system.progress import Shown, progress_bar, steps_shown
from medseg.visualization.mask_preview import named_mask
from medseg.visualization.viewer.scene import scene
from medseg.visualization.viewer.server import Server


def serve_viewer(
    scan: ScanLike,
    *masks: MaskLike,
    recipe: str | Path | None = None,
    port: int = 0,
    options: ReadOptions = DEFAULT_OPTIONS,
    progress: Shown = None,
) -> Server:
    """A server of the viewer: open its ``url`` in a browser while ``serve_forever()`` runs.

    Args:
        scan: A path, a volume, or an image of another library that :func:`medseg.as_volume` accepts.
        masks: No mask, one mask, or two masks to compare, on the scan's grid.
        recipe: A recipe that names the labels of masks read from files.
        port: Port of the server; 0 for any free one.
        options: How to read the scan when the file leaves a question open.
        progress: Whether to show progress; None shows it on a terminal or in a notebook only.

    Raises:
        InputRefused: the scan or a mask cannot be read or trusted.
        UsageError: more than two masks (``viewer-masks``), or one on another grid (``grid-mismatch``).
        ResourceError: ipyniivue is not installed (``missing-extra``).

    Example:
        >>> with medseg.serve_viewer("chest.nii.gz", "lungs.nii.gz") as server:
        ...     server.url.startswith("http://127.0.0.1:")
        True
    """
    with progress_bar("reading", progress) as advance:
        with steps_shown(advance):
            volume = as_volume(scan, options)
        notify_of_labels(volume)
        named = []
        for number, mask in enumerate(masks, start=1):
            advance(number, len(masks) + 2, "masks")
            name = Path(mask).name if isinstance(mask, str | Path) else f"mask {number}"
            named.append((name, named_mask(mask, volume, recipe)))
        advance(len(masks) + 1, len(masks) + 2, "preparing the viewer")
        return Server(scene(volume, named), port=port)


@contextmanager
def open_in_browser(server: Server) -> Iterator[None]:
    """A block during which the viewer is open in the user's browser.

    Every user of a machine can read the arguments of its processes, so the browser is not started with the
    address, which contains the token, but with a page that only this user can read and that leads there.
    """
    with tempfile.TemporaryDirectory(prefix="medseg-view-") as folder:  # its mode is 0700
        page = Path(folder) / "open.html"
        page.write_text(
            f'<!doctype html><meta charset="utf-8"><title>medseg view</title>'
            f'<meta http-equiv="refresh" content="0; url={server.url}">'
            f'<a href="{server.url}">Open the viewer</a>',
            encoding="utf-8",
        )
        webbrowser.open(page.as_uri())
        yield
