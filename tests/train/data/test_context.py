"""A slice with its neighbours: the same slices whoever brings them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from brats_cache.format.reader import Cache
from brats_train.data import augmentation
from brats_train.data.context import neighbor_positions, neighbor_rows, with_neighbors
from brats_train.data.feeders import make_feeder
from brats_train.data.selection import select_rows
from brats_train.inference.ensemble import load_ensemble
from tests.train.runs import make_run

CPU = torch.device("cpu")


@given(st.sets(st.integers(0, 30), min_size=1), st.integers(0, 3))
def test_a_neighbour_that_is_not_there_is_the_slice_itself(present: set[int], context: int) -> None:
    z = np.array(sorted(present))
    found = z[neighbor_positions(z, context)]
    for at, neighbours in zip(z, found, strict=True):
        wanted = range(at - context, at + context + 1)
        assert neighbours.tolist() == [one if one in present else at for one in wanted]


def test_neighbours_are_of_the_same_case_and_need_not_be_selected(cache: Cache) -> None:
    rows = select_rows([cache], "train", "middle")
    stacks = neighbor_rows([cache], rows, 2)
    slices = cache.slices[stacks]
    assert (slices["case"] == slices["case"][:, 2:3]).all()
    assert np.array_equal(
        slices["z"].astype(int) - slices["z"][:, 2:3], np.tile(range(-2, 3), (len(rows), 1))
    )
    every, positions = with_neighbors([cache], rows, 2)
    assert np.array_equal(every.row[positions], stacks)


@pytest.mark.parametrize("resident", ["never", "always"])
@pytest.mark.parametrize("num_caches", [1, 2])
def test_batches_hold_the_stacked_slices_and_the_middle_mask(
    cache: Cache, resident: str, num_caches: int
) -> None:
    caches = [cache] * num_caches
    rows = select_rows(caches, "train", "all")
    feeder = make_feeder(caches, rows, context=1, largest=5, device=CPU, resident=resident)
    chosen = np.random.default_rng(0).permutation(len(rows))[:5]
    ((images, masks),) = feeder.feed([chosen])
    stacks = neighbor_rows(caches, rows, 1)[chosen]
    expected = np.asarray(cache.images)[stacks].reshape(5, -1, *cache.shape[2:])
    assert np.array_equal(images.numpy(), expected)
    assert np.array_equal(masks.numpy(), np.asarray(cache.masks)[stacks[:, 1]])


def test_all_slices_of_a_sample_are_augmented_alike() -> None:
    config = augmentation.AugmentConfig(
        rotate_degrees=20, scale=0.3, gamma=0.3, bias_field=0.3, blur=0.5, modality_dropout=0.5
    )
    parameters = augmentation.draw(
        config, num_samples=4, num_modalities=2, seed=0, epoch=0, step=0, device="cpu"
    )
    torch.manual_seed(0)
    images = torch.rand(4, 2, 32, 32) + 0.1
    masks = torch.zeros(4, 1, 32, 32, dtype=torch.uint8)
    alone, _ = augmentation.apply(images, masks, parameters)
    stacked, _ = augmentation.apply(
        images.repeat(1, 3, 1, 1), masks, replace(parameters, num_slices=3)
    )
    torch.testing.assert_close(stacked, alone.repeat(1, 3, 1, 1))


def test_background_beside_brain_stays_zero() -> None:
    """As of the slice above the brain's last one."""
    config = augmentation.AugmentConfig(gamma=0.3, bias_field=0.3, blur=0.5, probability=1.0)
    parameters = augmentation.draw(
        config, num_samples=2, num_modalities=2, num_slices=3, seed=0, epoch=0, step=0, device="cpu"
    )
    images = torch.rand(2, 6, 32, 32) + 0.1
    images[:, :2] = 0
    changed, _ = augmentation.apply(images, torch.zeros(2, 1, 32, 32).byte(), parameters)
    assert not changed[:, :2].any()
    assert changed[:, 2:].all()


def test_a_model_of_context_predicts_a_slice_from_its_neighbours(
    cache: Cache, tmp_path: Path
) -> None:
    ensemble = load_ensemble([make_run(tmp_path / "r", cache, context=1) / "best.pt"], CPU)
    rows = cache.row_slice(0)
    images, z = np.asarray(cache.images[rows]), cache.slices["z"][rows]
    whole = ensemble.probabilities(images, z)
    middle = len(z) // 2
    part = slice(middle - 1, middle + 2)
    three = ensemble.probabilities(images[part], z[part])
    torch.testing.assert_close(three[1], whole[middle])
    changed = images.copy()
    changed[middle + 1] = 0
    assert not torch.equal(ensemble.probabilities(changed, z)[middle], whole[middle])
    assert torch.equal(ensemble.probabilities(changed, z)[middle - 2], whole[middle - 2])
