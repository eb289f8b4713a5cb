"""medseg in the stages of its command line: the scan is read while torch is being imported."""

from __future__ import annotations

from peer import THREADS, Stages, arguments

given, stages = arguments(), Stages()

from concurrent.futures import ThreadPoolExecutor  # noqa: E402

import medseg  # noqa: E402
from medseg.system.memory import no_gc  # noqa: E402

reading = ThreadPoolExecutor(1).submit(medseg.read, given.scan)

with no_gc():
    import torch

    from medseg.inference.mask_assembly import Target, build_mask
    from medseg.inference.segmenter import Segmenter
    from medseg.preprocessing.transforms import prepare

    stages.done("import")
    torch.set_num_threads(THREADS)
    segment = Segmenter(str(given.model) if given.model.is_file() else given.model.name, engine=given.engine)
stages.done("model")
scan = reading.result()
stages.done("read")
recipe = segment.model.recipe
target, prepared = Target.of(scan, recipe), prepare(recipe, [scan])
planes, grid = segment.planes(prepared), prepared.grid
del scan, reading, prepared  # as the command line does
stages.done("prepare")


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
