"""Cross-validated trainings through the commands of `brats`, for the scripts beside this file.

A cache is built once, each variant of a recipe is trained on all folds and scored, and what is
finished in the folder is not done again.
"""

from __future__ import annotations

import argparse
import math
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from brats_train.evaluation.bootstrap import MIN_PATIENTS  # noqa: E402
from brats_train.evaluation.results import Results, read_results  # noqa: E402

REGIONS = ("wt", "tc", "et")


@dataclass(frozen=True)
class Variant:
    """A row of a table: a name, a recipe and changes to it.

    Where `flips_of` names another variant, its networks are scored again, averaged over flips.
    """

    name: str
    recipe: str
    settings: tuple[str, ...] = ()
    flips_of: str = ""


def add_options(parser: argparse.ArgumentParser, *, out: str) -> None:
    """Adds what every script asks; `out` is the default folder."""
    parser.add_argument("data", nargs="*", type=Path)
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=15.0, help="of training, for each fold")
    parser.add_argument("--epochs", type=int, help="at most so many, instead of the recipe's")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--modalities", default="t1,t1ce,t2,flair")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--encoder-weights", default="none")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path(out))


def build(options: argparse.Namespace, data: Sequence[Path], *words: object) -> Path:
    """Builds the cache, or finds it built."""
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"cache-{options.size}.h5"
    brats(
        *("build-cache", *data, "--out", path, "--size", options.size, *words),
        *("--modalities", options.modalities),
    )
    return path


def train_and_score(
    options: argparse.Namespace, cache: Path, run: Path, variant: Variant, *words: object
) -> Results:
    """Trains a variant and scores its validation cases, or reads what was done before."""
    if not (run / "eval" / "val" / "summary.json").is_file():
        settings = [*variant.settings, *options.settings]
        if options.epochs:
            settings.append(f"epochs={options.epochs}")
        brats(
            *("train", "--cache", cache, "--run-dir", run, "--resume", "--recipe", variant.recipe),
            *("--encoder-weights", options.encoder_weights, "--device", options.device, *words),
            *(word for setting in settings for word in ("--set", setting)),
        )
        brats("eval", "--run-dir", run, "--split", "val", "--device", options.device)
    return read_scores(run)


def cross_validate(
    options: argparse.Namespace, cache: Path, run: Path, variant: Variant
) -> Results:
    """Trains a variant on all folds and scores every case by the model that has not seen it."""
    words = ("--fold", "all", "--max-minutes", options.minutes)
    return train_and_score(options, cache, run, variant, *words)


def score_with_flips(options: argparse.Namespace, trained: Path, run: Path) -> Results:
    """Scores the networks of a run, averaged over flips, in a copy of it."""
    if not run.exists():
        copy = run.with_suffix(".copy")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(trained, copy, ignore=shutil.ignore_patterns("eval"))
        copy.rename(run)
    brats("eval", "--run-dir", run, "--split", "val", "--device", options.device, "--tta")
    return read_scores(run)


def read_scores(run: Path) -> Results:
    """The scores of a run on its validation cases, which must be there."""
    folder = run / "eval" / "val"
    results = read_results(folder)
    if results is None:
        sys.exit(f"{folder}: no evaluation was written.")
    return results


def scores(results: Results, region: str, name: str = "dice") -> list[float]:
    """The defined scores of a region, one value per case."""
    values = results.values(region, name).values()
    return [value for value in values if not math.isnan(value)]


def print_table(rows: Mapping[str, Results]) -> None:
    """Prints means of Dice with their intervals; of fewer than five cases all values."""
    regions = [one for one in REGIONS if any(one in results.regions for results in rows.values())]
    print("\n| recipe |", " | ".join(f"Dice {region.upper()}" for region in regions), end=" | ")
    print("slice IoU (slices; empty ones count) |")
    print("|---|" + "---|" * (len(regions) + 1))
    for name, results in rows.items():
        cells = " | ".join(_cell(results, region) for region in regions)
        summary = results.summary
        print(f"| {name} | {cells} | {summary['slice_iou']:.3f} ({summary['slice_rows']}) |")


def _cell(results: Results, region: str) -> str:
    values = scores(results, region)
    if not values:
        return ""
    dice = results.summary["regions"][region]["dice"]
    if len(values) < MIN_PATIENTS:
        return f"{dice['mean']:.3f} ({', '.join(f'{value:.3f}' for value in values)})"
    return (
        f"{dice['mean']:.3f} [{dice['low']:.3f}, {dice['high']:.3f}], median {dice['median']:.3f}"
    )


def print_expected(rows: Mapping[str, Results]) -> None:
    """Prints how the expected Dice compares with the true one, by region."""
    print("\n| recipe | region | cases | Dice, mean | expected | rank correlation | error, mean |")
    print("|---|---|---|---|---|---|---|")
    for name, results in rows.items():
        for region in results.regions:
            summary = results.summary["regions"][region]
            told = summary["expected_dice"]
            cells = (
                *(name, region.upper(), told["num_cases"], f"{summary['dice']['mean']:.3f}"),
                f"{told['mean']:.3f}",
                *(_score(told[key]) for key in ("rank_correlation", "mean_absolute_error")),
            )
            print(f"| {' | '.join(map(str, cells))} |")


def _score(score: Mapping[str, float | None]) -> str:
    if score["value"] is None:
        return "undefined"
    if score["low"] is None:
        return f"{score['value']:.3f}"
    return f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"


def draw_by_size(rows: Mapping[str, Results], path: Path) -> None:
    """Draws Dice, NSD and HD95 of all cases against the tumour's size, a colour per variant."""
    from matplotlib.figure import Figure

    from brats_train.report.figures import BLUE, GREEN, ORANGE

    regions = [one for one in REGIONS if any(one in results.regions for results in rows.values())]
    metrics = {"dice": "Dice", "nsd": "NSD", "hd95": "HD95 (mm)"}
    figure = Figure(figsize=(11, 3.2 * len(regions)), layout="constrained")
    grid = figure.subplots(len(regions), len(metrics), squeeze=False)
    for line, region in zip(grid, regions, strict=True):
        for axes, (metric, label) in zip(line, metrics.items(), strict=True):
            for (name, results), color, marker in zip(
                rows.items(), (BLUE, ORANGE, GREEN), "osv", strict=False
            ):
                sizes, values = (
                    results.values(region, "true_voxels"),
                    results.values(region, metric),
                )
                axes.semilogx(
                    [sizes[case] for case in values],
                    list(values.values()),
                    marker,
                    color=color,
                    alpha=0.8,
                    label=name,
                )
            axes.set(xlabel=f"true voxels of {region.upper()}", ylabel=label)
            axes.grid(alpha=0.3)
    grid[0, 0].legend()
    figure.savefig(path)
    print(f"\nDice, NSD and HD95 by size: {path}")


def brats(*words: object) -> None:
    """Runs the checkout's own `brats`, and ends with it where it fails."""
    command = [sys.executable, str(ROOT / "brats"), *map(str, words)]
    print("$", shlex.join(["brats", *command[2:]]), flush=True)
    if code := subprocess.call(command):
        sys.exit(code)
