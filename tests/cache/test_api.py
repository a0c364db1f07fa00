"""The Python functions of `brats_cache` do what the commands do."""

from __future__ import annotations

from pathlib import Path

import pytest

import brats_cache
from brats_cache.errors import BratsError, CacheNotFoundError
from tests.cache.scans import add_case, mask


def test_a_cache_is_built_opened_and_left_alone_the_second_time(tmp_path: Path) -> None:
    for number in range(2):
        add_case(tmp_path / "in", f"p{number}", labels=mask((1,)), seed=number)
    cache = brats_cache.build_cache(tmp_path / "in", tmp_path / "c.h5", size=16, workers=1)
    content = cache.path.read_bytes()
    again = brats_cache.build_cache([tmp_path / "in"], tmp_path / "c.h5", size=16, workers=1)
    assert again.path.read_bytes() == content
    opened = brats_cache.open_cache(str(tmp_path / "c.h5"))
    assert opened.images.shape == (8, 4, 16, 16)


def test_errors_are_caught_by_their_public_names_or_by_the_built_in(tmp_path: Path) -> None:
    for kind in (BratsError, CacheNotFoundError, FileNotFoundError):
        with pytest.raises(kind, match="no such file"):
            brats_cache.open_cache(tmp_path / "none.h5")


def test_words_and_manifests_are_passed_on(tmp_path: Path) -> None:
    for number in range(2):
        add_case(tmp_path / "in", f"p{number}", labels=mask((1,)), mask_role="contour", seed=number)
    options = {"size": 16, "workers": 1}
    with pytest.raises(BratsError, match="--mask-word contour"):
        brats_cache.build_cache(tmp_path / "in", tmp_path / "c.h5", **options)
    cache = brats_cache.build_cache(
        tmp_path / "in", tmp_path / "c.h5", mask_words=["contour"], **options
    )
    assert cache.cases["has_mask"].all()
    table = tmp_path / "in" / "table.csv"
    lines = [f"p{n},p{n}/p{n}_t1.nii,p{n}/p{n}_contour.nii" for n in range(2)]
    table.write_text("\n".join(["case,t1,seg", *lines, ""]))
    cache = brats_cache.build_cache(
        [], tmp_path / "m.h5", manifest=table, modalities=["t1"], **options
    )
    assert cache.cases["has_mask"].all()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'open_cash'"):
        _ = brats_cache.open_cash  # type: ignore[attr-defined]
