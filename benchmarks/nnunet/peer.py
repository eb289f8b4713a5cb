"""What ``speed.py`` runs with the Python of nnU-Net: make a model, segment a scan, restore logits.

python peer.py make FOLDER [CLASSES]          a training folder with random weights
python peer.py segment FOLDER SCAN MASK [CLASSES]
python peer.py restore LOGITS.npy SCAN MASK   logits on a 1.5 mm grid, by nnU-Net's own export
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import oracle
import torch
from network_time import NetworkTime
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

CASE = {
    "plans": oracle.plans(
        {
            "3d_fullres": oracle.configuration(
                patch_size=[64, 128, 128], spacing=[1.5, 1.5, 1.5], architecture=oracle.plain(3, 4)
            )
        }
    )
}


def many(classes: int) -> dict:
    """A smaller network with many classes at 3 mm, like TotalSegmentator's fast task."""
    settings = oracle.configuration(
        patch_size=[64, 64, 64], spacing=[3.0, 3.0, 3.0], architecture=oracle.plain(3)
    )
    labels = {"background": 0} | {f"label_{n}": n for n in range(1, classes)}
    return {"plans": oracle.plans({"3d_fullres": settings}), "labels": labels}


def segment(folder: Path, case: dict, scan: Path, mask: Path) -> None:
    """Writes a mask by nnU-Net's predictor, and the time of its network."""
    spent = NetworkTime()
    plain = oracle.nnUNetPredictor._internal_maybe_mirror_and_predict
    oracle.nnUNetPredictor._internal_maybe_mirror_and_predict = spent.timed(plain)
    oracle.predict(folder, case, [scan], mask)
    spent.write()


def restore(logits: Path, scan: Path, mask: Path) -> None:
    """Writes a mask from logits (classes, z, y, x) by nnU-Net's export."""
    manager = PlansManager(CASE["plans"])
    settings = manager.get_configuration("3d_fullres")
    values = np.load(logits)
    labels = {"background": 0} | {f"label {n}": n for n in range(1, len(values))}
    dataset = {"labels": labels, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz", "numTraining": 1}
    image, properties = manager.image_reader_writer_class().read_images([str(scan)])
    shape = image.shape[1:]
    properties |= {
        "shape_before_cropping": shape,
        "shape_after_cropping_and_before_resampling": shape,
        "bbox_used_for_cropping": [[0, n] for n in shape],
    }
    del image
    export_prediction_from_logits(
        values, properties, settings, manager, dataset, str(mask).removesuffix(".nii.gz")
    )


if __name__ == "__main__":
    torch.set_num_threads(2)
    command, *given = sys.argv[1:]
    if command == "restore":
        restore(*(Path(each) for each in given))
    else:
        wanted = many(int(given.pop())) if given[-1].isdigit() else CASE
        paths = [Path(each) for each in given]
        if command == "make":
            oracle.train(paths[0], wanted, "3d_fullres")
        else:
            segment(paths[0], wanted, *paths[1:])
