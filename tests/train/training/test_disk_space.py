"""The disk is looked at before the first step, and what is needed is what is written."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from brats_cache.common.errors import BratsError
from brats_train.training.disk_space import check_disk_space, checkpoint_bytes
from brats_train.training.ema import MovingAverage
from brats_train.training.run_dir import RunDir


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("adamw", torch.optim.AdamW, {}),
        ("adam", torch.optim.Adam, {}),
        ("sgd", torch.optim.SGD, {"momentum": 0.9}),
    ],
)
@pytest.mark.parametrize("has_average", [True, False])
def test_the_size_is_that_of_what_is_written(
    name: str, kind: type, options: dict, has_average: bool
) -> None:
    model = nn.Sequential(nn.Conv2d(8, 64, 9), nn.BatchNorm2d(64))
    ema = MovingAverage(model, 0.99) if has_average else None
    optimizer = kind(model.parameters(), lr=0.1, **options)
    model(torch.ones(1, 8, 12, 12)).sum().backward()
    optimizer.step()
    state = {
        "model": model.state_dict(),
        "averaged": ema.state_dict() if ema else None,
        "optimizer": optimizer.state_dict(),
    }
    file, best = io.BytesIO(), io.BytesIO()
    torch.save(state, file)
    torch.save(model.state_dict(), best)
    expected = pytest.approx((len(file.getvalue()), len(best.getvalue())), rel=0.02)
    assert checkpoint_bytes(model, ema, name) == expected


def test_a_disk_that_is_too_small_is_told_with_both_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Linear(1000, 1000, bias=False)  # 4 MB
    step, run = SimpleNamespace(model=model, ema=None), RunDir(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=27_000_000))
    with pytest.raises(BratsError, match=r"need 26\.7 MiB, the disk has 25\.7 MiB free") as caught:
        check_disk_space(run, step, "adam")  # 2 x 12 MB and 4 MB
    assert str(tmp_path) in str(caught.value)
    check_disk_space(run, step, "sgd")
    run.best.write_bytes(bytes(2_000_000))  # will be replaced
    check_disk_space(run, step, "adam")
