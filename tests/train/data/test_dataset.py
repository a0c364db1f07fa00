"""The plain dataset: the rows of a cache, whoever reads them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from brats_cache.common.errors import BratsError
from brats_cache.format.reader import Cache
from brats_cache.imaging.labels import region_table
from brats_train.data.dataset import BratsSlices
from brats_train.data.selection import select_rows


def test_an_item_is_a_row_of_the_cache(cache: Cache) -> None:
    dataset = BratsSlices(cache.path, "val")
    rows = select_rows([cache], "val", "all").row
    assert len(dataset) == len(rows) > 0
    for index in (0, len(rows) // 2, -1):
        image, mask = dataset[index]
        assert (image.dtype, mask.dtype) == (torch.float32, torch.uint8)
        np.testing.assert_array_equal(image.numpy(), cache.images[rows[index]])
        np.testing.assert_array_equal(mask.numpy(), cache.masks[rows[index]])
        case, z = dataset.where(index)
        record = cache.slices[rows[index]]
        assert (case.encode(), z) == (cache.cases["id"][record["case"]], record["z"])
    assert dataset.modalities == ("t1", "t1ce", "t2", "flair")


def test_regions_take_the_place_of_labels(cache: Cache) -> None:
    plain, regions = (
        BratsSlices(str(cache.path), rows="tumor", regions=r) for r in ((), ("wt", "et"))
    )
    for index in range(0, len(plain), 5):
        labels = plain[index][1][0].numpy()
        target = regions[index][1]
        assert target.dtype == torch.float32
        for channel, region in zip(target.numpy(), ("wt", "et"), strict=True):
            np.testing.assert_array_equal(channel, region_table(region)[labels])


def test_rows_and_folds_are_chosen_as_for_training(cache: Cache) -> None:
    middle = BratsSlices(cache.path, "val", rows="middle", fold=1)
    chosen = select_rows([cache], "val", "middle", 1).row
    assert len(middle) == len(chosen)
    assert {middle.where(index)[1] for index in range(len(middle))} == {12}
    with pytest.raises(BratsError, match="folds"):
        BratsSlices(cache.path, fold=7)


def test_items_belong_to_the_caller(cache: Cache) -> None:
    dataset = BratsSlices(cache.path)
    image, mask = dataset[0]
    before = image.clone(), mask.clone()
    image.zero_(), mask.fill_(9)
    again = dataset[0]
    assert torch.equal(again[0], before[0])
    assert torch.equal(again[1], before[1])


def test_a_loop_over_it_ends(cache: Cache) -> None:
    dataset = BratsSlices(cache.path, "val", rows="middle")
    assert sum(1 for _ in dataset) == len(dataset)
    for index in (len(dataset), -len(dataset) - 1):
        with pytest.raises(IndexError):
            dataset[index]


def test_a_pickle_carries_names_and_not_pixels(cache: Cache) -> None:
    dataset = BratsSlices(cache.path)
    expected = dataset[3]  # the maps are open now
    pickled = pickle.dumps(dataset)
    assert len(pickled) < cache.images.nbytes / 100
    copy = pickle.loads(pickled)
    assert torch.equal(copy[3][0], expected[0])
    assert copy.where(3) == dataset.where(3)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_the_same_rows(cache: Cache, method: str) -> None:
    dataset = BratsSlices(cache.path, rows="tumor")
    expected = [dataset[index] for index in range(len(dataset))]  # opened before they are started
    loader = DataLoader(dataset, batch_size=4, num_workers=2, multiprocessing_context=method)
    images, masks = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert torch.equal(images, torch.stack([image for image, _ in expected]))
    assert torch.equal(masks, torch.stack([mask for _, mask in expected]))


def test_a_cache_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(BratsError, match=r"nothing\.h5"):
        BratsSlices(tmp_path / "nothing.h5")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"split": "vall"}, "split is 'vall'; expected one of train, val, test"),
        ({"rows": "each"}, "rows is 'each'"),
        ({"regions": ("tumour",)}, "tumour"),
    ],
)
def test_what_does_not_exist_is_refused(cache: Cache, words: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        BratsSlices(cache.path, **words)
