"""Several caches read as one: opened together, as parts of a sharded build, patients checked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from brats_cache.common.errors import BratsError, printable
from brats_cache.common.names import id_key
from brats_cache.common.text import first_few
from brats_cache.format.reader import Cache, open_cache

__all__ = ["as_sets", "check_compatible", "check_patients", "missing_parts", "open_caches"]


def as_sets(caches: Sequence[Cache]) -> list[list[Cache]]:
    """Groups the parts of one build, in their order; every other cache is alone.

    Raises:
        BratsError: One part is there twice; it names both files.
    """
    sets: dict[object, list[Cache]] = {}
    for cache in caches:
        is_part = cache.shard[1] > 1
        key = (cache.set_fingerprint, cache.shard[1]) if is_part else cache
        sets.setdefault(key, []).append(cache)
    for members in sets.values():
        members.sort(key=lambda cache: cache.shard)
        for one, other in pairwise(members):
            if one.shard == other.shard:
                raise BratsError(
                    f"{printable(one.path)} and {printable(other.path)} are both part "
                    f"{one.shard[0]} of {one.shard[1]}. Leave one out."
                )
    return list(sets.values())


def missing_parts(members: Sequence[Cache]) -> list[int]:
    """Returns the numbers of the parts that are not among `members`, parts of one set."""
    held = {cache.shard[0] for cache in members}
    return [index for index in range(1, members[0].shard[1] + 1) if index not in held]


def check_patients(caches: Sequence[Cache], *, by_fold: bool = False) -> None:
    """Refuses caches that put one patient on different sides of the split.

    Args:
        caches: The caches that are read as one.
        by_fold: Whether folds decide which cases validate; then a patient that is not test must be
            in one fold.

    Raises:
        BratsError: It names the first patients and the two files.
    """
    first_of: dict[str, tuple[str, Path]] = {}
    clashes: dict[tuple[Path, Path], list[str]] = defaultdict(list)
    for cache in caches:
        here: dict[str, str] = {}
        for record in cache.cases:
            split, fold = record["split"].decode(), int(record["fold"])
            name = "no fold" if fold < 0 else f"fold {fold}"
            here[record["patient"].decode()] = name if by_fold and split != "test" else split
        for patient, side in here.items():
            before, path = first_of.setdefault(id_key(patient), (side, cache.path))
            if before != side:
                clashes[path, cache.path].append(f"{patient} ({before} and {side})")
    messages = []
    for (first, second), names in clashes.items():
        messages.append(
            f"{printable(first)} and {printable(second)} put one patient on two sides: "
            f"{printable(first_few(names))}."
        )
    if messages:
        messages.append(
            "Build them with one --split-file that names every patient, such as the .splits.csv "
            "files beside them put together."
        )
        raise BratsError("\n".join(messages))


def open_caches(
    paths: Sequence[Path], *, same_modalities: bool = True, by_fold: bool = False
) -> list[Cache]:
    """Opens caches that are to be read as one.

    Args:
        paths: The files.
        same_modalities: Whether all must hold the same modalities.
        by_fold: See `check_patients`.

    Raises:
        BratsError: They do not fit together: pixels made in different ways, one case twice, or one
            patient on two sides of the split.
    """
    caches = [open_cache(path) for path in paths]
    check_compatible(caches, same_modalities=same_modalities)
    check_patients(caches, by_fold=by_fold)
    return caches


def check_compatible(caches: Sequence[Cache], *, same_modalities: bool = True) -> None:
    """Refuses caches whose rows cannot be put together.

    Args:
        caches: The caches.
        same_modalities: Whether all must hold the same modalities, in the same order.

    Raises:
        BratsError: Their pixels were made in different ways, or one case is in two of them.
    """
    first = caches[0]
    path_of: dict[bytes, Path] = {}
    for cache in caches:
        expected = first.preparation
        if not same_modalities:
            expected = replace(expected, modalities=cache.preparation.modalities)
        if cache.preparation != expected:
            raise BratsError(
                f"{printable(cache.path)} and {printable(first.path)} were prepared differently: "
                f"{cache.preparation} and {first.preparation}."
            )
        for case in cache.cases["id"].tolist():
            if case in path_of:
                raise BratsError(
                    f"{printable(case.decode())}: in {printable(path_of[case])} and again in "
                    f"{printable(cache.path)}."
                )
            path_of[case] = cache.path
