"""What the paper shows, beside what a run has: docs/paper.md says what the paper did."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from brats_train.training.curves import training_seconds

__all__ = ["compare_with_paper"]

PAPER_SECONDS = 250 * 60
PAPER_EPOCHS, PAPER_SLICES = 200, 314
PAPER_RATE = PAPER_EPOCHS * PAPER_SLICES / PAPER_SECONDS  # training slices a second


def compare_with_paper(
    config: Mapping[str, Any], epochs: Sequence[Mapping[str, float]], best: int | None
) -> str:
    """A table of the paper's figures beside those of a run, as HTML; empty before the first epoch.

    Args:
        config: The run's config.json.
        epochs: Rows of its metrics.csv.
        best: The epoch of best.pt.
    """
    if not epochs:
        return ""
    kept = next((row for row in epochs if row["epoch"] == best), epochs[-1])
    seconds = training_seconds(epochs)
    rows = [
        ("IoU, validation slices", "about 0.65", _shown(kept.get("val_iou", math.nan), 3)),
        ("IoU, training slices", "near 0.9", _shown(kept.get("train_iou", math.nan), 3)),
        ("epochs", str(PAPER_EPOCHS), str(len(epochs))),
        ("training slices", str(PAPER_SLICES), str(config.get("num_train_rows", "–"))),
        ("minutes", f"about {PAPER_SECONDS / 60:.0f}", _shown(seconds / 60, 1)),
        (
            "training slices a second",
            f"{PAPER_RATE:.1f}",
            _shown(kept.get("slices_per_s", math.nan), 1),
        ),
    ]
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        f"<td>{escape(paper)}</td><td>{escape(own)}</td></tr>"
        for name, paper, own in rows
    )
    note = (
        "The paper: one slice a case of BraTS 2020, whole tumour, one laptop with an RTX 4060. "
        f"This run: the epoch whose weights were kept, {int(kept['epoch'])}. Scores of other data, "
        "slices or targets are no comparison."
    )
    return (
        '<div class="scroll narrow"><table class="plain">'
        f"<caption>{escape(note)}</caption>"
        '<thead><tr><th scope="col"></th><th scope="col">paper</th><th scope="col">this run</th>'
        f"</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _shown(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"
