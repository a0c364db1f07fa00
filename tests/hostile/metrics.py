"""metrics.csv of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from brats_train.training.curves import best_epoch
from brats_train.training.metrics_file import METRIC_COLUMNS, append_row, cut_rows, read_rows
from tests.hostile.mutations import Files, spoil_bytes, spoil_table

ROWS = [
    list(METRIC_COLUMNS),
    *([str(epoch), *(f"{0.7 / epoch:.10g}" for _ in METRIC_COLUMNS[1:])] for epoch in range(1, 5)),
]


def make(rng: np.random.Generator) -> Files:
    """A file of four epochs; its header mostly stays, without which the rows are not read."""
    content = spoil_table(ROWS, rng)
    if rng.random() < 0.7:
        header = (",".join(METRIC_COLUMNS) + "\n").encode()
        content = header + content.partition(b"\n")[2]
    return {"metrics.csv": spoil_bytes(content, rng) if rng.random() < 0.2 else content}


def read(folder: Path) -> None:
    """Reads the rows, and goes on after the second epoch: what is added is read as it was."""
    path = folder / "metrics.csv"
    rows = read_rows(path)
    assert all(list(row) == list(METRIC_COLUMNS) for row in rows)
    assert best_epoch(rows, "iou_loss") in (None, *(int(row["epoch"]) for row in rows))
    cut_rows(path, 2)
    kept = read_rows(path)
    assert [str(row) for row in kept] == [str(row) for row in rows if row["epoch"] <= 2]
    new = dict.fromkeys(METRIC_COLUMNS, 3.0)
    append_row(path, new)
    assert [str(row) for row in read_rows(path)] == [str(row) for row in (*kept, new)]
