"""MONAI pipeline from its tutorials: Spacingd, sliding_window_inference, Invertd, AsDiscreted, SaveImage."""

from __future__ import annotations

from peer import HIGH_HU, LOW_HU, OVERLAP, SPACING_MM, WINDOW, Stages, arguments, network

given, stages = arguments(), Stages()

import torch  # noqa: E402
from monai.data import decollate_batch, list_data_collate  # noqa: E402
from monai.inferers import sliding_window_inference  # noqa: E402
from monai.transforms import (  # noqa: E402
    AsDiscreted,
    Compose,
    EnsureChannelFirstd,
    Invertd,
    LoadImaged,
    Orientationd,
    SaveImage,
    ScaleIntensityRanged,
    Spacingd,
)

stages.done("import")
net = network(given.model)
stages.done("model")
before = Compose(
    [
        LoadImaged("image"),
        EnsureChannelFirstd("image"),
        Orientationd("image", axcodes="RAS"),
        Spacingd("image", pixdim=SPACING_MM, mode="bilinear"),
        ScaleIntensityRanged("image", LOW_HU, HIGH_HU, 0.0, 1.0, clip=True),
    ]
)
loading = Compose(before.transforms[:2])
case = loading({"image": str(given.scan)})
stages.done("read")
for step in before.transforms[2:]:
    case = step(case)
stages.done("prepare")
batch = list_data_collate([case])
net, gpu = net.to(given.device), given.device != "cpu"
with torch.no_grad(), torch.autocast("cuda", torch.float16, gpu):
    batch["pred"] = sliding_window_inference(
        batch["image"].to(given.device), WINDOW, 4 if gpu else 1, net, overlap=OVERLAP, mode="gaussian"
    )
stages.done("network")
after = Compose(
    [
        Invertd("pred", transform=before, orig_keys="image", nearest_interp=False, to_tensor=True),
        AsDiscreted("pred", argmax=True),
    ]
)
(done,) = [after(each) for each in decollate_batch(batch)]
stages.done("restore")
SaveImage(
    output_dir=str(given.mask.parent),
    output_postfix="",
    output_ext=".nii.gz",
    separate_folder=False,
    output_dtype="uint8",
    print_log=False,
    output_name_formatter=lambda *_: {"subject": given.mask.name.removesuffix(".nii.gz"), "idx": None},
)(done["pred"])
stages.done("write")
stages.tell()
