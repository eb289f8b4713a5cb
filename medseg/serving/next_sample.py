"""Which case a reader gets next: the one that the network is least certain of, or one without a label."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from math import isnan
from pathlib import Path

from medseg.batch_processing.annotation_order import RankedCase, rank_cases
from medseg.serving.data_folder import ServedImage

STRATEGIES: Mapping[str, str] = {
    "least_certain": "the case of which the network is least certain",
    "first": "the first case without a label",
}
"""Names that a client may choose, with what they do."""
_MOST_CLIENTS = 1000
_HELD_SECONDS = 3600.0


class NextSample:
    """The order in which cases are handed out, each to one reader at a time.

    Args:
        batch: Output folder of ``medseg batch`` on the same scans, whose entropies order them; None for none.

    Raises:
        UsageError: as for :func:`medseg.rank_cases`.
    """

    def __init__(self, batch: Path | None = None) -> None:
        self._ranks: dict[str, float] = {}
        self._paths: dict[str, float] = {}
        self.entropy_bits: dict[str, float] = {}
        self._handed: dict[str, tuple[str, float]] = {}
        ranked = () if batch is None else rank_cases(batch)
        for each in ranked:
            self._ranks[each.case] = self._paths[each.input] = _rank(each)

    def segmented(self, image: str, entropy_bits: float | None) -> None:
        """Remembers the uncertainty of a mask that this server has made."""
        if entropy_bits is not None:
            self.entropy_bits[image] = entropy_bits

    def choose(self, images: Iterable[ServedImage], strategy: str, client: str) -> ServedImage | None:
        """The next case for a client; None if there is none left.

        A case that another client got within the last hour comes after all others.

        Args:
            images: The cases without a final label.
            strategy: A key of `STRATEGIES`.
            client: Name of the client.
        """
        now, left = time.monotonic(), list(images)
        if not left:
            return None

        def order(image: ServedImage) -> tuple[bool, float]:
            holder, since = self._handed.get(image.id, (client, now))
            held = holder != client and now - since < _HELD_SECONDS
            return held, self._uncertainty(image) if strategy == "least_certain" else 0.0

        chosen = min(left, key=order)
        self._handed[chosen.id] = (client[:200], now)
        while len(self._handed) > _MOST_CLIENTS:
            self._handed.pop(next(iter(self._handed)))
        return chosen

    def _uncertainty(self, image: ServedImage) -> float:
        """Sorts the least certain case first, and cases of unknown certainty last."""
        if image.id in self.entropy_bits:
            return -self.entropy_bits[image.id]
        found = self._paths.get(str(image.path))
        return self._ranks.get(image.id, 1.0) if found is None else found


def _rank(case: RankedCase) -> float:
    """-2 if nothing was found (a missed structure has no entropy), 2 if nothing is known, else -1..0."""
    if case.note == "nothing found":
        return -2.0
    return 2.0 if isnan(case.entropy_bits) else -case.entropy_bits
