"""The viewer in a browser, served by this machine for itself."""

from __future__ import annotations

from pathlib import Path

from medseg.io.foreign_images import MaskLike, ScanLike, as_volume
from medseg.io.read_options import DEFAULT_OPTIONS, ReadOptions
from medseg.visualization.mask_preview import named_mask
from medseg.visualization.viewer.scene import scene
from medseg.visualization.viewer.server import Server


def serve_viewer(
    scan: ScanLike,
    *masks: MaskLike,
    recipe: str | Path | None = None,
    port: int = 0,
    options: ReadOptions = DEFAULT_OPTIONS,
) -> Server:
    """A server of the viewer: open its ``url`` in a browser while ``serve_forever()`` runs.

    Args:
        scan: A path, a volume, or an image of another library, as :func:`medseg.as_volume` takes it.
        masks: None, one, or two to compare, on the scan's grid.
        recipe: Of masks at paths: names of their labels.
        port: 0 for any that is free.
        options: What only the user can decide about how the scan is read.

    Raises:
        InputRefused: the scan or a mask cannot be read or trusted.
        UsageError: more than two masks (``viewer-masks``), or one on another grid (``grid-mismatch``).
        ResourceError: ipyniivue is not installed (``missing-extra``).

    Example:
        >>> with medseg.serve_viewer("chest.nii.gz", "lungs.nii.gz") as server:
        ...     server.url.startswith("http://127.0.0.1:")
        True
    """
    volume = as_volume(scan, options)
    named = []
    for number, mask in enumerate(masks, start=1):
        name = Path(mask).name if isinstance(mask, str | Path) else f"mask {number}"
        named.append((name, named_mask(mask, volume, recipe)))
    return Server(scene(volume, named), port=port)
