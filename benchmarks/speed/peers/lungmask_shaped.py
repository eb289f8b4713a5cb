"""lungmask's pipeline and network (R231, 31 M parameters) with random weights, to measure time only.

Postprocessing is left out, because the network outputs noise instead of lungs; this favours lungmask.
"""

from __future__ import annotations

import logging

from peer import THREADS, Stages, arguments

given, stages = arguments(), Stages()

import numpy as np  # noqa: E402
import SimpleITK as sitk  # noqa: E402, N813
import torch  # noqa: E402
from lungmask.mask import LMInferer  # noqa: E402
from lungmask.resunet import UNet  # noqa: E402

logging.disable(logging.INFO)
stages.done("import")
torch.set_num_threads(THREADS)
torch.manual_seed(0)
net = UNet(n_classes=3, padding=True, depth=5, up_mode="upsample", batch_norm=True, residual=False).eval()
inferer = LMInferer.__new__(LMInferer)
inferer.fillmodel, inferer.model, inferer.modelname = None, net, "R231"
inferer.batch_size, inferer.tqdm_disable = 20, True
inferer.volume_postprocessing, inferer.device = False, torch.device("cpu")
stages.done("model")
scan = sitk.ReadImage(str(given.scan))
stages.done("read")
found = inferer.apply(scan)
stages.done("network")
mask = sitk.GetImageFromArray(found.astype(np.uint8))
mask.CopyInformation(scan)
sitk.WriteImage(mask, str(given.mask), True)
stages.done("write")
stages.tell()
