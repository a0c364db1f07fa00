"""A run directory: its files, how a new one is chosen, what may be replaced."""

from __future__ import annotations

import itertools
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from brats_cache.common.errors import BratsError, RunNotFoundError, printable
from brats_cache.common.files import remove, sweep_partials, write_atomically
from brats_train.models.exported_folder import is_exported
from brats_train.models.run_files import fold_folders
from brats_train.training.config_file import parse_config
from brats_train.training.metrics_file import append_row, cut_rows, read_rows
from brats_train.training.run_lock import run_lock

__all__ = ["RunDir", "decisive", "differences"]

RUNS = Path("runs")
_DECISIVE = ("recipe", "fold", "init_from", "deterministic", "micro_batch", "caches", "labels")
_OURS = (
    *("config.json", "metrics.csv", "best.pt", "last.pt"),
    *("report.html", "figures", "eval", "eval_store", "tensorboard"),
)


class RunDir:
    """The files of one run, under `path`."""

    def __init__(self, path: Path, *, is_made: bool = False) -> None:
        """Names the files; `is_made` where this process has just made the directory."""
        self.path, self._is_made = path, is_made
        self.config = path / "config.json"
        self.metrics = path / "metrics.csv"
        self.best = path / "best.pt"
        self.last = path / "last.pt"
        self.figures = path / "figures"

    @classmethod
    def new(cls, path: Path | None, recipe: str) -> RunDir:
        """Makes a directory to train in.

        Args:
            path: Its place, where a directory may be already; None for `runs/RECIPE-DATE-TIME`,
                which is then this process's own: where another has just made it, "-2" and so on is
                added.
            recipe: Name or file of the recipe.

        Raises:
            BratsError: It cannot be made.
        """
        try:
            if path is not None:
                path = _fixed(path)
                is_made = not path.exists()
                path.mkdir(parents=True, exist_ok=True)
                return cls(path, is_made=is_made)
            RUNS.mkdir(exist_ok=True)
            stem = f"{Path(recipe).stem}-{datetime.now():%Y%m%d-%H%M%S}"
            for number in itertools.count(1):
                path = RUNS / (stem if number == 1 else f"{stem}-{number}")
                with suppress(FileExistsError):
                    path.mkdir()
                    break
            assert path is not None
            return cls(path, is_made=True)
        except OSError as error:
            raise BratsError(
                f"{printable(path or RUNS)}: cannot be made ({error.strerror})."
            ) from error

    @contextmanager
    def locked(self, command: str) -> Iterator[None]:
        """Holds the directory for a command that writes into it.

        Files that killed processes left half written are removed first, and at the end a directory
        that was made for this run and holds nothing.

        Raises:
            BratsError: Another command holds it; the message names it.
        """
        try:
            with run_lock(self.path, command):
                sweep_partials(self.path)
                yield
        finally:
            if self._is_made:
                with suppress(OSError):  # it holds a run
                    self.path.rmdir()

    def check_vacant(self) -> None:
        """Raises `BratsError` where the directory holds a run."""
        if present := self._present():
            raise BratsError(
                f"{printable(self.path)}: holds a run already ({present[0].name}). Go on with it "
                "by --resume, choose another --run-dir, or replace it with --overwrite."
            )

    def has_checkpoint(self) -> bool:
        """Whether there is a last.pt to resume from; if not, the run was killed before its first.

        Raises:
            BratsError: There is none, though best.pt shows that there was: it is written later.
        """
        if self.last.is_file():
            return True
        if self.best.exists():
            raise BratsError(
                f"{printable(self.path)}: nothing to resume: {self.best.name} is there, but "
                f"{self.last.name} is not, which every run writes before it. Put it back, or start "
                "again with --overwrite."
            )
        return False

    @classmethod
    def existing(cls, path: Path | None) -> RunDir:
        """A directory that holds a run; by default the latest."""
        run = cls(path or RUNS / "latest")
        if is_exported(run.path):
            raise RunNotFoundError(
                f"{printable(run.path)}: an exported model, which predict, eval and --init-from "
                "take; here a run is needed."
            )
        if not run.config.is_file():
            there = run.path.exists()
            what = f"holds no run (no {run.config.name})" if there else "there is no such run"
            which = "another" if path else "a run with --run-dir"
            raise RunNotFoundError(f"{printable(run.path)}: {what}. Train first, or name {which}.")
        return cls(_fixed(run.path))

    def make_latest(self) -> str:
        """Points `runs/latest` at this run if it lies in `runs/`.

        Returns:
            A warning where that is not possible, "" otherwise.
        """
        try:
            if self.path.resolve().parent != RUNS.resolve():
                return ""
            link, fresh = RUNS / "latest", RUNS / f".latest.{secrets.token_hex(8)}"
            if link.exists() and not link.is_symlink():
                return ""  # a person's own folder of that name
            fresh.symlink_to(self.path.resolve().name)
            os.replace(fresh, link)
        except OSError as error:
            place = RUNS / "latest"
            return f"{place}: cannot be set ({error.strerror}). Name this run with --run-dir."
        return ""

    def begin(self, config: Mapping[str, Any]) -> None:
        """Makes the directory, removes what an earlier run left in it, and writes config.json."""
        try:
            for old in self._present():
                remove(old)
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BratsError(f"{self.path}: cannot be made ({error.strerror}).") from error
        self.write_config(config)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Writes config.json, replacing it."""
        write_atomically(self.config, (json.dumps(config, indent=2) + "\n").encode())

    def _present(self) -> list[Path]:
        """What a run has left here."""
        ours = [path for name in _OURS if (path := self.path / name).exists()]
        return ours + list(fold_folders(self.path).values())

    def read_config(self) -> dict[str, Any]:
        """What config.json holds. Raises `BratsError` where that is no run's settings."""
        return parse_config(self.config)

    def check_same(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Compares everything that decides a run's result with config.json.

        More epochs than the run had are allowed, they extend it. Caches are compared by what they
        hold, wherever they lie now. On another number of processes the samples that each computes
        at once may differ.

        Returns:
            What config.json holds.

        Raises:
            BratsError: Something differs; each difference is named.
        """
        held = self.read_config()
        found = [
            f"{name}: {_shown(before)} there, {_shown(now)} now"
            for part in _DECISIVE
            for name, (before, now) in differences(
                part, [decisive(held, part), decisive(config, part)]
            )
            if not (name == "epochs" and now > before)
            and not (name == "micro_batch" and held.get("world_size") != config.get("world_size"))
        ]
        if found:
            lines = "\n".join(f"  {line}" for line in found)
            raise BratsError(
                f"{printable(self.path)}: --resume goes on with the settings and data of the run, "
                f"and these differ:\n{lines}\n"
                "Leave them out, for the run keeps its own, or start a run in another --run-dir."
            )
        return held

    def cut_metrics(self, num_epochs: int) -> None:
        """Keeps the first `num_epochs` epochs of metrics.csv, see `metrics_file.cut_rows`."""
        cut_rows(self.metrics, num_epochs)

    def append_metrics(self, row: Mapping[str, float]) -> None:
        """Adds one epoch to metrics.csv, see `metrics_file.append_row`."""
        append_row(self.metrics, row)

    def read_metrics(self) -> list[dict[str, float]]:
        """The epochs of metrics.csv, see `metrics_file.read_rows`."""
        return read_rows(self.metrics)


def _fixed(path: Path) -> Path:
    """The directory that a link such as runs/latest leads to now; it may soon lead elsewhere."""
    return path.resolve() if path.is_symlink() else path


def decisive(config: Mapping[str, Any], name: str) -> Any:
    """A part of config.json, to be compared: caches are known by what they hold."""
    value = config.get(name)
    if name == "caches" and isinstance(value, list):
        return [cache["fingerprint"] for cache in value]
    return value


def differences(name: str, values: Sequence[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Compares settings, mappings entered.

    Args:
        name: What the settings are called.
        values: Of each side.

    Yields:
        The name of a setting that is not equal in all, and its value in each, None for none.
    """
    if all(isinstance(value, Mapping) for value in values):
        for inner in dict.fromkeys(key for value in values for key in value):
            yield from differences(f"{name}.{inner}", [value.get(inner) for value in values])
    elif any(value != values[0] for value in values):
        yield name.removeprefix("recipe."), list(values)


def _shown(value: Any) -> str:
    return json.dumps(value)
