"""Evaluation of a model, or of a folder of masks, against the truth of a manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from medseg.datasets.manifest import Case, Manifest
from medseg.errors import UsageError
from medseg.evaluation import evaluator, summary_table
from medseg.evaluation.metrics import NSD_TOLERANCE_MM
from medseg.evaluation.prediction_files import read_prediction
from medseg.evaluation.scoring import Tolerances
from medseg.evaluation.tables import begins_with
from medseg.images.label import Label
from medseg.images.volume import Mask, check_labels
from medseg.inference.registry import SegmentationMethod, load_segmenter
from medseg.io import read_channels
from medseg.io.formats import mask_ending
from medseg.io.mask_files import is_own_mask, write_mask
from medseg.io.overwrite_guard import OverwriteGuard
from medseg.io.picture.masks import DEFAULT_CODING, MaskCoding
from medseg.io.picture.reader import displayed
from medseg.io.sidecar import facts_of, is_own_sidecar, sidecar_path
from medseg.recipe import Recipe
from medseg.system.file_names import file_name
from medseg.system.output_folder import make_output_folder
from medseg.system.progress import Advance, Shown, progress_bar
from medseg.visualization.case_slices import case_slices
from medseg.visualization.thumbnails import encoded, line, thumbnail
from medseg.visualization.thumbnails import read as read_thumbnails

_THUMBNAILS = "thumbnails.jsonl"
_FIRST_BYTES = b'{"case": '


@dataclass(frozen=True)
class Evaluation:
    """The result of :func:`evaluate`.

    Attributes:
        table: One row per case and label, with the columns ``medseg.evaluation.evaluator.COLUMNS``.

    Example:
        >>> evaluation = medseg.evaluate("cases.csv", "scores", model="threshold")
        >>> evaluation.failures
        {}
    """

    table: pd.DataFrame

    @property
    def summary(self) -> pd.DataFrame:
        """Statistics per label: see :func:`medseg.evaluation.summary_table.summary`."""
        return summary_table.summary(self.table)

    @property
    def failures(self) -> dict[str, str]:
        """The reason of each failure, by case id."""
        failed = self.table[self.table["status"] == "failed"].drop_duplicates("case")
        return dict(zip(failed["case"], failed["reason"], strict=True))


@dataclass(frozen=True)
class _Predictor:
    """A source of predicted masks, the labels to score, and what the pixels of a truth stand for."""

    predict: Callable[[Case], Mask]
    labels: tuple[Label, ...]
    coding: MaskCoding


def evaluate(
    cases: str | Path | Manifest | Sequence[Case],
    output: str | Path | None = None,
    *,
    model: str | Path | SegmentationMethod | None = None,
    masks: str | Path | None = None,
    labels: Recipe | str | Path | Sequence[Label] = (),
    split: str = "test",
    nsd_tolerance_mm: Tolerances = NSD_TOLERANCE_MM,
    progress: Shown = None,
) -> Evaluation:
    """Scores every case and label against the truth: overlap, surface distances, volumes and lesions.

    A case that fails becomes a row with the reason and does not stop the others.

    Args:
        cases: A manifest, its path, or a sequence of cases, which are all evaluated whatever their split.
        output: Folder for ``evaluation.csv``, the summary as CSV, JSON, Markdown and LaTeX, and the masks
            predicted by the model; created if it does not exist. None writes nothing.
        model: Model to segment the cases with: a name, a file, or a loaded :func:`medseg.load_segmenter`.
        masks: Instead of ``model``: a folder of masks, named ``<case id>`` with the suffix of any format that
            can be read, such as ``.nii.gz``, ``.nrrd``, or ``.dcm`` for a DICOM SEG or RTSTRUCT.
        labels: With ``masks``: the labels to score, or the recipe whose masks they are.
        split: Which cases of a manifest to evaluate: ``train``, ``val``, ``test``, or ``all``.
        nsd_tolerance_mm: Distance in mm up to which surfaces agree in the normalised surface Dice: one for
            all labels, or by label, with the empty name for all others.
        progress: Whether to show a progress bar; None shows it on a terminal or in a notebook only.

    Raises:
        UsageError: the manifest cannot be read, no case has this split (``usage``), neither a model nor masks
            with a recipe or labels are given (``usage``), an output would replace an input
            (``overwrites-input``) or a file that no evaluation wrote (``foreign-file``), labels are not
            distinct (``labels``), or a tolerance is invalid (``tolerance``).
        ModelRefused: the model is damaged or does not fit.

    Example:
        >>> evaluation = medseg.evaluate("cases.csv", "out", model="threshold")
        >>> evaluation.table["case"].unique().tolist(), evaluation.failures
        (['case_3'], {})
        >>> bool(evaluation.summary.loc["all labels", "dice_mean"] > 0.9)
        True
    """
    chosen = _chosen(cases, split)
    if (model is None) == (masks is None) or (masks is not None) != bool(labels):
        raise UsageError(
            "give either --model, or --masks with --recipe or --label",
            where="medseg evaluate",
            reason="usage",
        )
    scored, coding = _labels_to_score(labels)
    folder = None if output is None else Path(output)
    if folder is not None:
        files = [Path(each) for each in (cases, model, labels) if isinstance(each, str | Path)]
        named = [path for path in files if path.is_file()]
        _check_outputs(folder, chosen, named, writes_masks=model is not None)
        make_output_folder(folder)
    with progress_bar("evaluating", progress) as advance:
        if model is not None:
            by = _segmenting(model, folder, len(chosen), advance)
        else:
            by = _reading(Path(str(masks)), scored, coding)
        table = evaluator.evaluate_cases(
            chosen,
            by.predict,
            by.labels,
            nsd_tolerance_mm=_by_label(nsd_tolerance_mm, by.labels),
            ignore_value=by.coding.ignore_value,
            coding=by.coding,
            on_case=advance,
        )
    if folder is not None:
        summary_table.write(table, folder)
    return Evaluation(table)


def _check_outputs(
    folder: Path, cases: Sequence[Case], inputs: Sequence[str | Path], *, writes_masks: bool
) -> None:
    """Refuses, before any work, outputs that would replace inputs, or masks that medseg did not write."""
    files = [path for case in cases for path in (*case.images, case.label) if path is not None]
    guard = OverwriteGuard([*inputs, *files])
    for case in cases if writes_masks else ():
        mask = _mask_path(folder, case)
        guard.check(mask, is_own=is_own_mask)
        guard.check(sidecar_path(mask), is_own=is_own_sidecar)
    if writes_masks:
        guard.check(folder / _THUMBNAILS, is_own=_are_own_thumbnails)
    first = folder / summary_table.FILES[0]  # always written before the others
    for name in summary_table.FILES:
        guard.check(folder / name, is_own=lambda path: begins_with(first, evaluator.KEYS))


def _mask_path(folder: Path, case: Case) -> Path:
    return folder / "masks" / f"{file_name(case.id)}{mask_ending(case.images[0])}"


def _are_own_thumbnails(path: Path) -> bool:
    """Whether an evaluation wrote the thumbnails; those of a batch are named by their model."""
    with path.open("rb") as file:
        start = file.read(len(_FIRST_BYTES))
    return _FIRST_BYTES.startswith(start) and all(model == "" for _, model in read_thumbnails([path]))


def _chosen(cases: str | Path | Manifest | Sequence[Case], split: str) -> tuple[Case, ...]:
    where = cases if isinstance(cases, str | Path) else None
    if isinstance(cases, str | Path):
        cases = Manifest.read(cases)
    if not isinstance(cases, Manifest):
        return tuple(cases)
    chosen = cases.cases if split == "all" else cases.split(split)
    if not chosen:
        raise UsageError(
            f"no case has split {split!r}",
            where=where or cases.name,
            remedy="give --split all",
            reason="usage",
        )
    return chosen


def _by_label(given: Tolerances, labels: Sequence[Label]) -> Tolerances:
    """The tolerance of each label, if any is given by label."""
    if not isinstance(given, Mapping):
        return given
    others = given.get("", NSD_TOLERANCE_MM)
    named = {name: mm for name, mm in given.items() if name}
    return {label.name: others for label in labels} | named


def _segmenting(
    model: str | Path | SegmentationMethod, folder: Path | None, total: int, advance: Advance
) -> _Predictor:
    segment = load_segmenter(model) if isinstance(model, str | Path) else model
    if folder is not None:
        (folder / "masks").mkdir(exist_ok=True)
        (folder / _THUMBNAILS).unlink(missing_ok=True)
    done: list[str] = []

    def predict(case: Case) -> Mask:
        volumes = read_channels(case.images, channels=len(segment.channels))
        mask = segment(volumes)
        if folder is not None:
            write_mask(mask, _mask_path(folder, case), facts_of(mask, segment))
            with (folder / _THUMBNAILS).open("a", encoding="utf-8") as file:
                shown = displayed(volumes)
                picture, slices = encoded(thumbnail(shown, mask)), case_slices(shown, mask)
                file.write(line(case.id, "", picture, slices))
        done.append(case.id)
        advance(len(done), total, f"{case.id}: segmented")
        return mask

    recipe = getattr(segment, "recipe", None)  # other methods have no colours
    coding = recipe.coding if isinstance(recipe, Recipe) else MaskCoding(ignore_value=segment.ignore_value)
    return _Predictor(predict, segment.labels, coding)


def _reading(masks: Path, labels: tuple[Label, ...], coding: MaskCoding) -> _Predictor:
    return _Predictor(lambda case: read_prediction(masks, case, labels, coding), labels, coding)


def _labels_to_score(labels: Recipe | str | Path | Sequence[Label]) -> tuple[tuple[Label, ...], MaskCoding]:
    """The labels, distinct, and what the pixels of a truth stand for."""
    if isinstance(labels, str | Path):
        labels = Recipe.read(labels)
    if isinstance(labels, Recipe):
        # Those of the masks that a model of this recipe makes: the sides, if it divides its label.
        return labels.painted, labels.coding
    check_labels(labels)
    return tuple(labels), DEFAULT_CODING
