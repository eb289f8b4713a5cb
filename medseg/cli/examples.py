"""Examples of the commands, which ``--help`` shows before the options."""

from __future__ import annotations

EXAMPLES = {
    "segment": ("medseg segment chest.nii.gz -o lungs.nii.gz", "medseg segment *.nii.gz -o masks/"),
    "batch": ("medseg batch scans -o segmented", "medseg batch scans -o segmented --resume"),
    "manifest": ("medseg manifest FOLDER -o cases.csv --val 0.1 --test 0.2",),
    "check": ("medseg check cases.csv --recipe lung_ct_2d",),
    "plan": ("medseg plan FOLDER -o recipe.yaml",),
    "train": ("medseg train recipe.yaml cases.csv -o runs/first --max-time 2h",),
    "evaluate": ("medseg evaluate cases.csv --model runs/first/model.safetensors -o scores",),
    "compare": ("medseg compare a/evaluation.csv b/evaluation.csv -o versus",),
    "measure": ("medseg measure chest.nii.gz lungs.nii.gz -o measures.csv",),
    "preview": ("medseg preview chest.nii.gz lungs.nii.gz -o look.png",),
    "view": ("medseg view chest.nii.gz lungs.nii.gz", "medseg view chest.nii.gz mine.nii.gz theirs.nii.gz"),
    "report": ("medseg report segmented",),
    "augment": ("medseg augment lung_ct_2d cases.csv -o look.png",),
    "convert": ("medseg convert dicom_folder -o scan.nii.gz",),
    "info": ("medseg info dicom_folder",),
    "phantom": ("medseg phantom phantom_data --cases 10",),
    "recipe": ("medseg recipe lung_ct_2d > mine.yaml",),
    "job": ("medseg job IN OUT",),
    "serve": ("medseg serve data",),
    "rank": ("medseg rank segmented -o order.csv",),
    "learn-curve": ("medseg learn-curve cases.csv --recipe mine.yaml --sizes 4,8,16 -o runs/curve",),
    "ensemble": ("medseg ensemble a.safetensors b.safetensors -o both.safetensors",),
    "export": ("medseg export runs/first/model.safetensors -o package",),
    "import-model": ("medseg import-model nnUNetTrainer__nnUNetPlans__3d_fullres -o imported.safetensors",),
    "import-weights": ("medseg import-weights unet.pth --recipe mine.yaml -o imported.safetensors",),
    "models": ("medseg models",),
    "demo": ("medseg demo -o demo",),
    "tune": ("medseg tune cases.csv --recipe recipe.yaml -o search",),
}


def help_of(name: str, docstring: str) -> str:
    """The help of a command: what it does, examples, and the rest of its docstring."""
    first, _, rest = docstring.partition("\n\n")
    shown = "Examples: " if len(EXAMPLES.get(name, ())) > 1 else "Example: "
    parts = (first, shown + "; ".join(EXAMPLES[name]) if name in EXAMPLES else "", rest)
    return "\n\n".join(part for part in parts if part)
