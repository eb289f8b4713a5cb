"""TorchIO pipeline: ToCanonical, Resample, GridSampler, GridAggregator, logits resampled to the scan."""

from __future__ import annotations

from peer import HIGH_HU, LOW_HU, OVERLAP, SPACING_MM, WINDOW, Stages, arguments, network

given, stages = arguments(), Stages()

import torch  # noqa: E402
import torchio as tio  # noqa: E402

stages.done("import")
net = network(given.model)
stages.done("model")
scan = tio.ScalarImage(given.scan)
scan.load()
stages.done("read")
before = tio.Compose(
    [
        tio.ToCanonical(),
        tio.Resample(SPACING_MM),
        tio.Clamp(LOW_HU, HIGH_HU),
        tio.RescaleIntensity((0, 1), in_min_max=(LOW_HU, HIGH_HU)),
    ]
)
subject = before(tio.Subject(image=scan))
stages.done("prepare")
overlap = tuple(int(n * OVERLAP) // 2 * 2 for n in WINDOW)
sampler = tio.inference.GridSampler(subject, WINDOW, overlap)
aggregator = tio.inference.GridAggregator(sampler, overlap_mode="hann")
with torch.no_grad():
    for patch in sampler:
        logits = net(patch["image"][tio.DATA][None].float())
        aggregator.add_batch(logits, patch[tio.LOCATION][None])
stages.done("network")
found = tio.ScalarImage(tensor=aggregator.get_output_tensor(), affine=subject["image"].affine)
back = tio.Resample(scan)(found)
labels = back.data.argmax(0, keepdim=True).to(torch.uint8)
stages.done("restore")
tio.LabelMap(tensor=labels, affine=back.affine).save(given.mask)
stages.done("write")
stages.tell()
