"""CPU time of measuring the lungs of a scan, and of what a report shows of them.

python benchmarks/lung_pictures.py SCAN MASK
"""

from __future__ import annotations

import sys
import time

import medseg
from medseg.measurement.measure_picture import lung_figure
from medseg.visualization.lung_record import lung_record


def main() -> None:
    """Prints seconds of CPU and the size of the record, twice."""
    scan = medseg.read(sys.argv[1])
    mask = medseg.read_named(sys.argv[2], scan)
    print("shape", scan.grid.shape)
    for _ in range(2):
        started = time.process_time()
        found = medseg.measure(scan, mask)
        measured = time.process_time()
        record = lung_record(lung_figure(found, scan, mask))
        drawn = time.process_time()
        print(
            f"measure {measured - started:.2f} s, draw {drawn - measured:.2f} s of CPU, "
            f"{len(str(record)) / 1000:.0f} kB"
        )


if __name__ == "__main__":
    main()
