"""What is settled before the first step: data, sizes, pieces of batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from brats_cache.common.errors import BratsError
from brats_cache.format.reader import Cache, open_cache
from brats_train.data.selection import select_rows
from brats_train.runtime.distributed import World
from brats_train.training.initial_state import make_optimizer
from brats_train.training.recipe import Recipe, apply_settings, load_recipe
from brats_train.training.setup import (
    check_batch,
    check_data,
    fewest_at_once,
    resolve_recipe,
    side_of,
)
from brats_train.training.state import TrainJob
from brats_train.training.train_step import TrainStep, split_evenly
from tests.commands import SMALL_ENCODER

SMALL = (
    f"model.encoder={SMALL_ENCODER}",
    "encoder_weights=none",
    "rows=tumor",
    "epochs=2",
    "batch_size=24",
    "lr=1e-3",
    "amp=off",
)


def job_of(cache_path: Path, *settings: str, **fields: Any) -> TrainJob:
    recipe = apply_settings(Recipe(), [*SMALL, *settings])
    return TrainJob(
        cache_paths=(cache_path,), recipe_name="test", recipe=recipe, deterministic=True, **fields
    )


def test_slices_without_any_tumour_are_not_trained_on(cache_path: Path, tmp_path: Path) -> None:
    cache = open_cache(cache_path)
    empty = replace(cache, slices=cache.slices.copy())
    empty.slices["label_pixels"] = 0
    rows = select_rows([empty], "train", "all")
    job = job_of(cache_path, "rows=all")
    with pytest.raises(BratsError, match="--allow-no-tumor"):
        check_data([empty], rows, rows, job, print)
    check_data([empty], rows, rows, replace(job, allow_no_tumor=True), print)


@given(st.integers(1, 50), st.integers(1, 20), st.integers(1, 4), st.integers(1, 8))
def test_the_fewest_samples_at_once_are_those_of_all_steps(
    num_samples: int, batch_size: int, ranks: int, micro: int
) -> None:
    batch_size = max(batch_size, ranks)
    at_once = []
    for start in range(0, num_samples, batch_size):
        size = min(batch_size, num_samples - start)
        for rank in range(ranks):
            step = SimpleNamespace(world=SimpleNamespace(size=ranks), micro_batch=micro)
            num_pieces = TrainStep._num_pieces(step, size)  # type: ignore[arg-type]
            part = World(rank=rank, size=ranks, device=torch.device("cpu")).local_slice(size)
            pieces = split_evenly(max(1, part.stop - part.start), num_pieces)
            at_once += [piece.stop - piece.start for piece in pieces]
    assert fewest_at_once(num_samples, batch_size, ranks, str(micro)) == min(at_once)
    assert fewest_at_once(num_samples, batch_size, 1, "auto") == min(
        size for size in (min(batch_size, num_samples), num_samples % batch_size) if size
    )


def test_what_is_no_number_of_samples_is_left_to_choose_micro_batch() -> None:
    assert fewest_at_once(8, 4, 1, "²") == fewest_at_once(8, 4, 1, "auto") == 4


@pytest.mark.parametrize(
    ("size", "window", "share", "expected"),
    [(256, 0.7, 0.7, 192), (256, 0.6, 0.0, 160), (96, 0.7, 0.7, 96), (256, 1.0, 0.0, 256)],
)
def test_the_window_can_be_halved_where_steps_are_coarse(
    size: int, window: float, share: float, expected: int
) -> None:
    recipe = apply_settings(Recipe(), [f"augment.window={window}", f"half_resolution={share}"])
    assert side_of(recipe, size) == expected


def test_slices_that_cannot_be_halved_are_trained_on_whole(cache: Cache) -> None:
    narrow = replace(cache, shape=(*cache.shape[:2], 96, 96))
    notes: list[str] = []
    recipe = resolve_recipe(load_recipe("strong"), [narrow], notes.append)
    assert recipe.half_resolution == 0
    assert recipe.target == "regions"
    assert "96 pixels" in notes[0]
    assert resolve_recipe(load_recipe("strong"), [cache], notes.append).half_resolution > 0


@given(st.integers(1, 300), st.integers(1, 8), st.integers(1, 64))
def test_ranks_cut_a_batch_into_equally_many_pieces(size: int, ranks: int, micro: int) -> None:
    """Collectives within a forward pass come once a piece, so unequal numbers would hang."""
    num_pieces = set()
    for rank in range(ranks):
        step = SimpleNamespace(world=SimpleNamespace(size=ranks), micro_batch=micro)
        num = TrainStep._num_pieces(step, size)  # type: ignore[arg-type]
        part = World(rank=rank, size=ranks, device=torch.device("cpu")).local_slice(size)
        pieces = split_evenly(max(1, part.stop - part.start), num)
        lengths = [piece.stop - piece.start for piece in pieces]
        assert min(lengths) >= 1
        assert max(lengths) <= micro + 1
        num_pieces.add(num)
    assert len(num_pieces) == 1


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)],
)
def test_each_optimizer_lowers_a_loss_and_spares_the_norms_if_told(name: str, kind: type) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LayerNorm(3))
    recipe = apply_settings(
        Recipe(), [f"optimizer={name}", "lr=0.01", "weight_decay=0.1", "decay_norms=false"]
    )
    optimizer = make_optimizer(model, recipe)
    assert type(optimizer) is kind
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    inputs, losses = torch.randn(8, 4), []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (model(inputs) - 1).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_sgd_has_nesterovs_momentum() -> None:
    model = torch.nn.Linear(1, 1)
    optimizer = make_optimizer(model, apply_settings(Recipe(), ["optimizer=sgd"]))
    (group,) = optimizer.param_groups
    assert (group["momentum"], group["nesterov"]) == (0.9, True)


def test_graphs_are_not_replayed_over_the_gradients_of_another_piece() -> None:
    check_batch(Recipe(), 32, 32, "reduce-overhead")
    check_batch(Recipe(), 16, 32, True)
    with pytest.raises(BratsError, match=r"reduce-overhead: the 32 samples .* pieces of 16"):
        check_batch(Recipe(), 16, 32, "reduce-overhead")
