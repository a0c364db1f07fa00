"""What is recorded of an epoch: its row in metrics.csv and its line on the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from brats_train.training.validation import NAMES

__all__ = ["epoch_line", "epoch_row"]


def epoch_row(
    *,
    epoch: int,
    lr: float,
    training: Mapping[str, float],
    validation: Mapping[str, float],
    seconds: float,
    train_seconds: float,
    waited_seconds: float,
    num_samples: int,
) -> dict[str, float]:
    """Puts an epoch's figures under the columns of metrics.csv.

    Args:
        epoch: From 1.
        lr: Learning rate of its last step.
        training: Means over the training samples, by `NAMES`.
        validation: Means over the validation slices, by `NAMES`.
        seconds: Duration of the epoch, validation included.
        train_seconds: Duration of its training steps.
        waited_seconds: Part of them spent waiting for data.
        num_samples: Samples of these steps over all ranks.
    """
    return {
        "epoch": epoch,
        "lr": lr,
        **{f"train_{name}": training[name] for name in NAMES},
        **{f"val_{name}": validation[name] for name in NAMES},
        "seconds": seconds,
        "slices_per_s": num_samples / train_seconds,
        "wait_pct": 100 * waited_seconds / train_seconds,
    }


def epoch_line(row: Mapping[str, float], num_epochs: int, is_best: bool) -> str:
    """One line for the terminal, from a row of metrics.csv."""
    mark = "  best" if is_best else ""
    return (
        f"epoch {row['epoch']:>3}/{num_epochs}  loss {row['train_loss']:.4f}  "
        f"val iou {row['val_iou']:.4f}  {row['slices_per_s']:.1f} slices/s  "
        f"wait {row['wait_pct']:.1f} %{mark}"
    )
