"""Experiment trackers beside metrics.csv: TensorBoard and MLflow, on the main rank alone."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol

from brats_cache.common.errors import BratsError
from brats_train.runtime.distributed import World
from brats_train.runtime.settings import flatten
from brats_train.training.recipe import Recipe, recipe_to_dict
from brats_train.training.run_dir import RunDir

__all__ = ["TRACKERS", "Trackers", "check_trackers"]

TRACKERS = ("tensorboard", "mlflow")  # names of their packages


def check_trackers(names: Sequence[str]) -> None:
    """Raises `BratsError` where one of the trackers `names` is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise _missing(name)


class _Tracker(Protocol):
    def __call__(self, row: Mapping[str, float]) -> None: ...


class Trackers:
    """Every tracker that was asked for."""

    def __init__(self, trackers: Sequence[_Tracker]) -> None:
        self._trackers = tuple(trackers)

    def log(self, row: Mapping[str, float]) -> None:
        """Records one epoch, a row of metrics.csv."""
        for tracker in self._trackers:
            tracker(row)

    @classmethod
    @contextmanager
    def open(
        cls, names: Sequence[str], run: RunDir, world: World, recipe: Recipe
    ) -> Iterator[Trackers]:
        """The trackers `names`, of `TRACKERS`. Raises `BratsError` where one is not installed."""
        openers = {"tensorboard": _tensorboard, "mlflow": _mlflow}
        with ExitStack() as stack:
            wanted = names if world.is_main else ()
            yield cls([stack.enter_context(openers[name](run, recipe)) for name in wanted])


@contextmanager
def _tensorboard(run: RunDir, recipe: Recipe) -> Iterator[_Tracker]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise _missing("tensorboard") from None
    with SummaryWriter(str(run.path / "tensorboard")) as writer:

        def log(row: Mapping[str, float]) -> None:
            for name, value in row.items():
                writer.add_scalar(name.replace("_", "/", 1), value, int(row["epoch"]))

        yield log


@contextmanager
def _mlflow(run: RunDir, recipe: Recipe) -> Iterator[_Tracker]:
    try:
        import mlflow
    except ImportError:
        raise _missing("mlflow") from None
    with mlflow.start_run(run_name=run.path.name):
        mlflow.log_params(flatten(recipe_to_dict(recipe)))

        def log(row: Mapping[str, float]) -> None:
            mlflow.log_metrics(dict(row), step=int(row["epoch"]))

        yield log


def _missing(name: str) -> BratsError:
    return BratsError(
        f"--track {name}: not installed. Install it: pip install -e '.[{name}]' in the checkout."
    )
