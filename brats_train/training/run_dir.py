"""A run directory: its files, how a new one is chosen, what may be replaced."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from brats_cache.common.errors import BratsError, RunNotFoundError
from brats_cache.common.files import write_atomically

__all__ = ["METRIC_COLUMNS", "RunDir"]

METRIC_COLUMNS = (
    *("epoch", "lr", "train_loss", "train_bce", "train_iou_loss", "train_iou"),
    *("val_loss", "val_bce", "val_iou_loss", "val_iou", "seconds", "slices_per_s", "wait_pct"),
)
RUNS = Path("runs")
_DECISIVE = ("recipe", "fold", "init_from", "deterministic", "micro_batch", "amp", "caches")
_OURS = (
    *("config.json", "metrics.csv", "best.pt", "last.pt"),
    *("report.html", "figures", "eval", "tensorboard"),
)


class RunDir:
    """The files of one run, under `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.metrics = path / "metrics.csv"
        self.best = path / "best.pt"
        self.last = path / "last.pt"
        self.figures = path / "figures"

    @classmethod
    def new(cls, path: Path | None, recipe: str, overwrite: bool) -> RunDir:
        """A directory to train in, not made yet; without a path it is `runs/RECIPE-DATE-TIME`.
        Raises `BratsError` where it holds a run and `overwrite` does not allow to replace it."""
        if path is None:
            stem = f"{Path(recipe).stem}-{datetime.now():%Y%m%d-%H%M%S}"
            path = next(
                candidate
                for number in range(1, 1000)
                if not (candidate := RUNS / (stem if number == 1 else f"{stem}-{number}")).exists()
            )
        run = cls(path)
        if (present := run._present()) and not overwrite:
            raise BratsError(
                f"{path}: holds a run already ({present[0].name}). Choose another --run, or "
                "replace it with --overwrite."
            )
        return run

    @classmethod
    def existing(cls, path: Path | None) -> RunDir:
        """A directory that holds a run; by default the latest."""
        run = cls(path or RUNS / "latest")
        if not run.config.is_file():
            hint = "" if path else " Train first, or name a run with --run."
            raise RunNotFoundError(f"{run.path}: holds no run (no {run.config.name}).{hint}")
        return cls(run.path.resolve() if path is None else run.path)

    def make_latest(self) -> str:
        """Points `runs/latest` at this run if it lies in `runs/`.

        Returns:
            A warning where that is not possible, "" otherwise.
        """
        try:
            if self.path.resolve().parent != RUNS.resolve():
                return ""
            link, fresh = RUNS / "latest", RUNS / f".latest.{os.getpid()}"
            if link.exists() and not link.is_symlink():
                return ""  # a person's own folder of that name
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(self.path.resolve().name)
            os.replace(fresh, link)
        except OSError as error:
            return f"{RUNS / 'latest'}: cannot be set ({error.strerror}). Name this run with --run."
        return ""

    def begin(self, config: Mapping[str, Any]) -> None:
        """Makes the directory, removes what an earlier run left in it, and writes config.json."""
        try:
            for old in self._present():
                shutil.rmtree(old) if old.is_dir() else old.unlink()
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BratsError(f"{self.path}: cannot be made ({error.strerror}).") from error
        self.write_config(config)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Writes config.json, replacing it."""
        write_atomically(self.config, (json.dumps(config, indent=2) + "\n").encode())

    def _present(self) -> list[Path]:
        """What a run has left here."""
        return [path for name in _OURS if (path := self.path / name).exists()]

    def read_config(self) -> dict[str, Any]:
        """What config.json holds."""
        try:
            config = json.loads(self.config.read_text())
        except (OSError, ValueError) as error:
            raise BratsError(f"{self.config}: cannot be read ({error}).") from error
        if not isinstance(config, dict):
            raise BratsError(f"{self.config}: holds no settings of a run.")
        return config

    def check_same(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Compares everything that decides a run's result with config.json.

        More epochs than the run had are allowed, they extend it. Caches are compared by what they
        hold, wherever they lie now.

        Returns:
            What config.json holds.

        Raises:
            BratsError: Something differs; each difference is named.
        """
        held = self.read_config()
        found = [
            f"{name}: {_shown(before)} there, {_shown(now)} now"
            for part in _DECISIVE
            for name, before, now in _differences(
                part, _decisive(held, part), _decisive(config, part)
            )
            if not (name == "epochs" and now > before)
        ]
        if found:
            lines = "\n".join(f"  {line}" for line in found)
            raise BratsError(
                f"{self.path}: this is another run than the one to be resumed:\n{lines}\n"
                "Resume with its own settings (those need not be repeated), or start a new run."
            )
        return held

    def cut_metrics(self, num_epochs: int) -> None:
        """Keeps the rows of the first `num_epochs` epochs of metrics.csv: a run that is resumed
        does the later ones again."""
        if not self.metrics.exists():
            return
        lines = self.metrics.read_text().splitlines(keepends=True)
        kept = lines[:1] + [line for line in lines[1:] if int(line.split(",")[0]) <= num_epochs]
        write_atomically(self.metrics, "".join(kept).encode())

    def append_metrics(self, row: Mapping[str, float]) -> None:
        """Adds one epoch to metrics.csv, columns METRIC_COLUMNS."""
        text = io.StringIO()
        writer = csv.DictWriter(text, METRIC_COLUMNS, lineterminator="\n")
        if not self.metrics.exists():
            writer.writeheader()
        writer.writerow({name: _short(row[name]) for name in METRIC_COLUMNS})
        try:
            with open(self.metrics, "a") as file:
                file.write(text.getvalue())
        except OSError as error:
            raise BratsError(f"{self.metrics}: cannot be written ({error.strerror}).") from error

    def read_metrics(self) -> list[dict[str, float]]:
        """The epochs of metrics.csv."""
        with open(self.metrics, newline="") as file:
            return [
                {name: float(value) for name, value in row.items()} for row in csv.DictReader(file)
            ]


def _decisive(config: Mapping[str, Any], name: str) -> Any:
    value = config.get(name)
    if name == "caches" and isinstance(value, list):
        return [cache["fingerprint"] for cache in value]
    return value


def _differences(name: str, held: Any, wanted: Any) -> Iterator[tuple[str, Any, Any]]:
    """Name, value there and value now of everything that differs, mappings entered."""
    if isinstance(held, Mapping) and isinstance(wanted, Mapping):
        for inner in dict.fromkeys([*held, *wanted]):
            yield from _differences(f"{name}.{inner}", held.get(inner), wanted.get(inner))
    elif held != wanted:
        yield name.removeprefix("recipe."), held, wanted


def _shown(value: Any) -> str:
    return json.dumps(value)


def _short(value: float) -> str:
    return f"{value:.10g}"
