"""medseg in the stages of its command line: the scan is read while the model is being loaded."""

from __future__ import annotations

import os

from peer import THREADS, Stages, arguments

os.environ |= {"OMP_NUM_THREADS": str(THREADS), "OPENBLAS_NUM_THREADS": "1"}
given, stages = arguments(), Stages()

from concurrent.futures import ThreadPoolExecutor  # noqa: E402

import medseg  # noqa: E402
from medseg.system.memory import no_gc  # noqa: E402

reading = ThreadPoolExecutor(1).submit(medseg.read, given.scan)

with no_gc():
    from medseg.inference.mask_assembly import Target, build_mask
    from medseg.inference.segmenter import Segmenter

    stages.done("import")
    segment = Segmenter(
        str(given.model) if given.model.is_file() else given.model.name,
        device=given.device,
        engine=given.engine,
    )
stages.done("model")
scan = reading.result()
stages.done("read")
recipe = segment.assembly
target, parts = Target.of(scan, recipe), segment.prepared_parts([scan])
del scan, reading  # as the command line does
stages.done("prepare")
found = segment.found(parts, target, on_device=True)
planes, grid = iter(found.planes), found.grid
del parts
stages.done("network")  # with a context, all networks have run; otherwise nothing has


def timed():
    """Yields the planes; the time inside counts as the network's."""
    while True:
        stages.done("restore")
        try:
            plane = next(planes)
        except StopIteration:
            stages.done("network")
            return
        stages.done("network")
        yield plane


mask = build_mask(timed(), grid, target, recipe)
stages.done("restore")
mask.save(given.mask)
stages.done("write")
stages.tell()
