"""How much LAA-950, Perc15 and volume depend on mask and voxel size: the tables of docs/results.md.

    python benchmarks/measures.py shared/data [-o measures.csv]

Every CT with a manual mask of both lungs is measured with that mask, with the mask of ``lung_ct`` and with
that of ``threshold``. Differences are from the manual mask, with the mean, its 95 % interval (bootstrap over
patients) and the extremes. Where a native scan is there, it is compared with its copy of about 2 mm.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

import medseg
from medseg.evaluation.confidence_intervals import mean_interval

COLUMNS = ("volume_ml", "mean_hu", "perc15_hu", "laa950_percent", "laa910_percent", "haa_percent", "laa950_d")
METHODS = ("lung_ct", "threshold")


def measured(folder: Path) -> pd.DataFrame:
    """One row for each scan, mask and structure."""
    rows = []
    ready = {method: medseg.load_segmenter(method) for method in METHODS}
    for manual in sorted(folder.glob("lung_ct_2mm/*/lung_mask.nii.gz")) + sorted(
        folder.glob("lung_ct_native/*/lung_mask.nii.gz")
    ):
        scan = medseg.read(manual.with_name("ct.nii.gz"))
        masks = {"manual": medseg.read_mask(manual, [medseg.Label(name="lungs", values=(1,))])}
        for method in METHODS:
            with medseg.collect_notices():
                masks[method] = ready[method].prepare((scan,)).predict().mask
        for by, mask in masks.items():
            with medseg.collect_notices():
                found = medseg.measure(scan, mask)
            for structure in ("right_lung", "left_lung", "both_lungs"):
                values = {name: found[structure][name] for name in COLUMNS}
                place = {"patient": manual.parent.name, "scan": manual.parent.parent.name.split("_")[-1]}
                rows.append({**place, "mask": by, "structure": structure, **values})
        print(manual.parent, flush=True)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    table = measured(options.data)
    if options.output:
        table.to_csv(options.output, index=False)
    both = table[table.structure == "both_lungs"].set_index(["scan", "patient", "mask"])
    print(both[list(COLUMNS)].round(3).to_string())
    for method in METHODS:
        at_2mm = both.loc["2mm"]
        gap = (
            at_2mm.xs(method, level="mask")[list(COLUMNS)] - at_2mm.xs("manual", level="mask")[list(COLUMNS)]
        )
        print(f"\n{method} minus manual, {len(gap)} patients")
        for name in COLUMNS:
            low, high = mean_interval(gap[name].tolist(), gap.index.tolist())
            ends = f"{gap[name].min():+.3f} to {gap[name].max():+.3f}"
            print(f"| {name} | {gap[name].mean():+.3f} ({low:+.3f} to {high:+.3f}) | {ends} |")
    if "native" in both.index.get_level_values("scan"):
        native = both.loc["native"]
        print("\n2 mm minus native")
        print((both.loc["2mm"].loc[native.index, list(COLUMNS)] - native[list(COLUMNS)]).round(3).to_string())


if __name__ == "__main__":
    main()
