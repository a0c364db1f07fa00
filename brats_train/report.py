"""A run's figures: curves of training, and scans with truth and prediction side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from brats_cache.files import write_atomically
from brats_cache.labels import region_table
from brats_cache.store import Cache

from .inference import Ensemble
from .run_dir import RunDir

__all__ = ["Panel", "draw_curves", "draw_panels", "save_figure", "widest_slices"]

DPI = 150
# Okabe and Ito's colours, told apart by colour-blind readers too.
TRUTH_COLOR, PREDICTION_COLOR = "#56B4E9", "#E69F00"
_CURVES = (
    ("loss", "combined loss"),
    ("bce", "binary cross-entropy"),
    ("iou_loss", "IoU loss"),
    ("iou", "mean slice IoU"),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """One slice to look at: image (H, W) float, truth and prediction (H, W) bool."""

    title: str
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray


def draw_curves(run: RunDir) -> Figure:
    """Training and validation by epoch, the best epoch marked: the paper's figures 14 to 17."""
    rows = run.read_metrics()
    epochs = [row["epoch"] for row in rows]
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    losses = [row["val_iou_loss"] for row in rows]
    best = epochs[int(np.nanargmin(losses))] if not np.isnan(losses).all() else None
    marker = "o" if len(rows) < 20 else None
    for axes, (name, label) in zip(figure.subplots(2, 2).flat, _CURVES, strict=True):
        axes.plot(epochs, [row[f"train_{name}"] for row in rows], marker=marker, label="training")
        axes.plot(
            epochs,
            [row[f"val_{name}"] for row in rows],
            marker=marker,
            linestyle="--",
            color=PREDICTION_COLOR,
            label="validation",
        )
        if best is not None:
            axes.axvline(best, color="0.6", linewidth=1, label=f"best epoch ({best:.0f})")
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    return figure


def draw_panels(panels: Sequence[Panel]) -> Figure:
    """Image, truth and prediction side by side, a row a panel: the paper's figure 12."""
    figure = Figure(figsize=(8, 2.75 * len(panels)), layout="constrained")
    grid = figure.subplots(len(panels), 3, squeeze=False)
    for axes_row, panel in zip(grid, panels, strict=True):
        low, high = np.percentile(panel.image, (1, 99.5))
        for axes, heading, mask, color in zip(
            axes_row,
            (panel.title, "truth", "prediction"),
            (None, panel.truth, panel.prediction),
            (None, TRUTH_COLOR, PREDICTION_COLOR),
            strict=True,
        ):
            axes.imshow(panel.image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6))
            if mask is not None and mask.any():
                axes.contourf(mask, levels=(0.5, 1.5), colors=[color], alpha=0.35)
                axes.contour(mask, levels=(0.5,), colors=[color], linewidths=1.2)
            axes.set_title(heading, fontsize=9)
            axes.axis("off")
    return figure


def widest_slices(caches: Sequence[Cache], cases: Sequence[str], ensemble: Ensemble) -> list[Panel]:
    """A panel for each case (by id): its row with the largest true tumour, with FLAIR (or the last
    modality) as the image."""
    panels = []
    modalities = ensemble.segmenter.preparation.modalities
    channel = modalities.index("flair") if "flair" in modalities else len(modalities) - 1
    for cache in caches:
        for record in cache.cases:
            name = record["id"].decode()
            if name not in cases or not record["rows"]:
                continue
            rows = np.arange(record["first_row"], record["first_row"] + record["rows"])
            row = rows[cache.slices["label_pixels"][rows][:, 1:4].sum(axis=1).argmax()]
            image = np.asarray(cache.images[row : row + 1])
            probability = ensemble.probabilities(image)[0, 0].cpu().numpy()
            panels.append(
                Panel(
                    title=f"{name}  z = {cache.slices['z'][row]}  ({modalities[channel]})",
                    image=image[0, channel].astype(np.float32),
                    truth=region_table(ensemble.segmenter.regions[0])[cache.masks[row, 0]],
                    prediction=probability >= ensemble.segmenter.threshold,
                )
            )
    return sorted(panels, key=lambda panel: list(cases).index(panel.title.split("  ")[0]))


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure in the format of the suffix of `path`, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "brats"}):
        figure.savefig(buffer, format=path.suffix[1:], dpi=DPI, metadata={})
    write_atomically(path, buffer.getvalue())
