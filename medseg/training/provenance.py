"""Provenance of a training, from which it can be repeated.

The folder of a training holds ``recipe.yaml``, ``cases.json`` (the manifest with its splits) and
``run.json`` (versions, machine, git state, digests of the data, options). The files contain no environment
variables and no names of users or machines.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from medseg.datasets.manifest import Case, Manifest
from medseg.errors import UsageError
from medseg.io.overwrite_guard import OverwriteGuard
from medseg.recipe import Recipe
from medseg.system.atomic_write import replacing
from medseg.system.notices import notify
from medseg.training.environment import git_state, installed_versions, machine

RECIPE, CASES, RUN = "recipe.yaml", "cases.json", "run.json"


@dataclass(frozen=True)
class Record:
    """Provenance of a training, read from its folder.

    Attributes:
        recipe: Recipe of the training.
        cases: Cases with their splits and paths at the time.
        facts: Content of ``run.json``.
    """

    recipe: Recipe
    cases: tuple[Case, ...]
    facts: dict[str, Any]


def check_outputs(folder: Path, inputs: Sequence[str | Path], recipe: Recipe | str) -> None:
    """Refuses, before any work, to replace the inputs of a training or files of another origin.

    Args:
        folder: Folder of the run; it need not exist.
        inputs: The recipe and the manifest, as far as they are files.
        recipe: The recipe to train. Its copy in the folder may be replaced by itself: a training that was
            killed in its first moments leaves nothing else.

    Raises:
        UsageError: a file that would be written is an input (``overwrites-input``), or exists although the
            folder has no record of a training (``foreign-file``).
    """
    guard = OverwriteGuard(each for each in inputs if Path(each).is_file())
    trained = any((folder / name).exists() for name in (RUN, "checkpoints", "cache", "model.safetensors"))
    for name in (RECIPE, CASES, RUN, "model.safetensors", "history.csv", "history.png", "summary.html"):
        # Further processes of a training check after the first has begun to write.
        guard.check(
            folder / name,
            is_own=lambda path: trained or rank_zero_only.rank > 0 or _is_copy_of(recipe, path),
        )


def _is_copy_of(recipe: Recipe | str, path: Path) -> bool:
    chosen = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
    try:
        return path.name == RECIPE and path.read_text(encoding="utf-8") == chosen.yaml()
    except (OSError, ValueError):
        return False


def write(
    folder: Path,
    recipe: Recipe,
    cases: Sequence[Case],
    *,
    options: Mapping[str, object],
    data: Mapping[str, str],
    source: Mapping[str, object] | None = None,
) -> None:
    """Writes the three files into the folder of a training, each atomically.

    Args:
        folder: Folder of the training; it exists.
        recipe: Recipe of the training.
        cases: All cases of the manifest.
        options: Other settings that determine the result, or how it was reached.
        data: Digest of the files and preparation of each case, by case id.
        source: What the training takes from the model that it starts from.
    """
    cases_file = Manifest(name=recipe.name, cases=tuple(cases), root=Path(os.path.commonpath(_paths(cases))))
    with replacing(folder / RECIPE) as fresh:
        fresh.write_text(recipe.yaml(), encoding="utf-8")
    cases_file.write(folder / CASES)
    facts = {
        "recipe_digest": recipe.digest,
        "data": dict(sorted(data.items())),
        "options": dict(options),
        "packages": installed_versions(),
        "machine": machine(),
        "git": {"medseg": git_state(Path(__file__).parent), "folder": git_state(Path.cwd())},
    }
    if source is not None:
        facts["source"] = dict(source)
    with replacing(folder / RUN) as fresh:
        fresh.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def ended(folder: Path, epochs: int) -> None:
    """Records after which epoch the training ended, because a time limit would not end a repetition there."""
    facts = json.loads((folder / RUN).read_text(encoding="utf-8")) | {"epochs_done": epochs}
    with replacing(folder / RUN) as fresh:
        fresh.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def read(folder: Path, *, root: str | Path | None = None) -> Record:
    """The record of a training.

    Args:
        folder: Folder of the training.
        root: Folder of the data, if it has been moved since.

    Raises:
        UsageError: the folder holds no record, or a damaged one (``no-record``).
    """
    try:
        facts = json.loads((folder / RUN).read_text(encoding="utf-8"))
        if not (isinstance(facts, dict) and isinstance(facts.get("data"), dict)):
            raise ValueError("it has no table of digests")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"not the folder of a training: {getattr(error, 'strerror', None) or error}",
            where=folder / RUN,
            remedy="give the folder that `medseg train -o` wrote",
            reason="no-record",
        ) from None
    return Record(Recipe.read(folder / RECIPE), Manifest.read(folder / CASES, root=root).cases, facts)


def check_recipe(record: Record, recipe: Recipe) -> None:
    """Refuses to resume a training with another recipe.

    Raises:
        UsageError: the recipe has changed (``resume-changed``).
    """
    saved = record.facts.get("recipe_digest", recipe.digest)
    if saved != recipe.digest:
        raise _resume_changed(
            f"the recipe has changed since this training began (digest {str(saved)[:12]}, "
            f"now {recipe.digest[:12]})"
        )


def check_resume(
    record: Record,
    cases: Sequence[Case],
    data: Mapping[str, str],
    *,
    options: Mapping[str, object],
    accept: bool,
) -> list[str]:
    """Changes since the training began that were accepted, in words.

    Cases, their splits and their order must be unchanged, because validation cases that were trained on
    measure nothing. The device and the number of processes may change if ``accept`` is set.

    Args:
        record: Record of the training to resume.
        cases: All cases of the manifest now.
        data: Digests of the cases now, as in :func:`write`.
        options: Settings now, as in :func:`write`.
        accept: Whether changes of the device or of the number of processes are accepted.

    Raises:
        UsageError: anything else that determines the result has changed (``resume-changed``).
    """
    for split in ("train", "val"):
        before, now = (_members(each, split) for each in (record.cases, cases))
        moved = sorted(set(before) ^ set(now))
        if moved:
            was, is_now = ({case.id: case.split for case in each} for each in (record.cases, cases))
            first = moved[0]
            raise _resume_changed(
                f"{len(moved)} case(s) have another split since this training began, the first is {first}: "
                f"{was.get(first) or 'not in the manifest'}, now {is_now.get(first) or 'not in the manifest'}"
            )
        if split == "train" and before != now:
            raise _resume_changed("the order of the training cases has changed since this training began")
    saved = record.facts["data"]
    changed = sorted(case for case in saved.keys() & data.keys() if saved[case] != data[case])
    if changed:
        raise _resume_changed(
            f"the data has changed since this training began: the files or the preparation of "
            f"{len(changed)} case(s), the first is {changed[0]}"
        )
    before_options = record.facts.get("options", {})
    changes = [
        f"{name} {before_options[name]} before, now {options[name]}"
        for name in ("processes", "device")
        if name in before_options and before_options[name] != options[name]
    ]
    if changes and not accept:
        raise UsageError(
            f"the hardware has changed since this training began: {'; '.join(changes)}",
            where="--resume",
            remedy="use the same hardware, or add --accept-changes: the result is then another one",
            reason="resume-changed",
        )
    _notify_other_versions(record)
    return changes


def add_changes(folder: Path, changes: Sequence[str]) -> None:
    """Adds accepted changes to the record of a resumed training."""
    if not changes:
        return
    facts = json.loads((folder / RUN).read_text(encoding="utf-8"))
    facts["changes"] = [*facts.get("changes", []), *changes]
    with replacing(folder / RUN) as fresh:
        fresh.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _members(cases: Sequence[Case], split: str) -> list[str]:
    return [case.id for case in cases if case.split == split]


def _resume_changed(problem: str) -> UsageError:
    return UsageError(problem, where="--resume", remedy="train into a new folder", reason="resume-changed")


def check(record: Record, data: Mapping[str, str], *, processes: int = 1) -> None:
    """Refuses to repeat a training on other data or with another number of processes.

    Other versions of packages give a notice.

    Args:
        record: Record of the training to repeat.
        data: Digests of the cases now, as in :func:`write`.
        processes: Number of processes now. With another number each step would see other patches.

    Raises:
        UsageError: a case has changed (``rerun-data``), or the number of processes differs
            (``rerun-processes``).
    """
    then = record.facts.get("options", {}).get("processes", processes)
    if then != processes:
        raise UsageError(
            f"the training had {then} process(es), now {processes}: each step would see other patches",
            where="--rerun",
            remedy=f"choose --devices and --nodes so that their product is {then}",
            reason="rerun-processes",
        )
    before = record.facts["data"]
    changed = sorted(case for case in before.keys() | data.keys() if before.get(case) != data.get(case))
    if changed:
        raise UsageError(
            f"{len(changed)} of {len(before)} cases have changed, the first is {changed[0]}",
            where="--rerun",
            remedy="restore the old files, or train on the new ones without --rerun",
            reason="rerun-data",
        )
    _notify_other_versions(record)


def _notify_other_versions(record: Record) -> None:
    old, new = record.facts.get("packages", {}), installed_versions()
    other = [f"{name} {old.get(name)} then, {new[name]} now" for name in new if old.get(name) != new[name]]
    if other:
        notify("other-versions", f"the result may differ in its last digits: {'; '.join(other)}")


def _paths(cases: Sequence[Case]) -> list[str]:
    # Not Path.resolve: images may be links into a store of content-addressed files.
    files = (file for case in cases for file in (*case.images, case.label) if file is not None)
    return [os.path.abspath(file.parent) for file in files]  # noqa: PTH100
