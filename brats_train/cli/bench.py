"""The command `brats bench`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from brats_train.cli.options import PATH, compile_option

__all__ = ["bench"]

# For rounds of a few seconds on either device.
_DEFAULTS = {"cpu": {"batch_size": 8, "steps": 3}, "cuda": {"batch_size": 64, "steps": 20}}


@click.command("bench")
@click.argument("what", type=click.Choice(["cache", "loader", "step", "predict"]))
@click.option(
    "--cache",
    "caches",
    multiple=True,
    type=PATH,
    help="loader, step: time on this cache, repeatable.  [default: a small synthetic one]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    help="loader, step.  [default: loader 64; step 64 on a GPU, 8 on a CPU]",
)
@click.option("--size", default=256, show_default=True, help="Side of a slice in pixels.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--amp",
    type=click.Choice(["auto", "bf16", "fp16", "off"]),
    default="auto",
    show_default=True,
    help="step, predict: mixed precision.",
)
@compile_option("step: torch.compile the model.")
@click.option(
    "--resident",
    type=click.Choice(["auto", "never", "always"]),
    default="auto",
    show_default=True,
    help="loader, step: rows kept on the device.",
)
@click.option("--steps", type=click.IntRange(1), help="loader, step: batches of a round.")
@click.option(
    "--rounds", type=click.IntRange(1), default=5, show_default=True, help="Timed rounds."
)
@click.option("--cases", default=2, show_default=True, help="cache, predict: synthetic cases.")
@click.option("--tta/--no-tta", default=False, show_default=True, help="predict: average flips.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="FIELD=VALUE",
    help="step: any field of the paper's recipe.",
)
@click.option("--json", "as_json", is_flag=True, help="Print all values of every round as JSON.")
def bench(what: str, as_json: bool, device: str, **options: Any) -> None:
    """Benchmark a part of the pipeline.

    cache: building one. loader: feeding batches, against a bare memory copy. step: the training
    step with real data, with data already in place, and without augmentation. predict: segmenting
    whole cases. Workloads are timed in turn; medians over rounds are shown.
    """
    from brats_train.runtime.distributed import process_group

    with process_group(device) as world:
        report = _measure(what, world, options)
        if not world.is_main:
            return
        if as_json:
            click.echo(json.dumps(report.as_json(world.device), indent=2))
        else:
            click.echo(report.as_text(world.device))


def _measure(what: str, world: Any, options: dict[str, Any]) -> Any:
    """Runs one benchmark and returns its `BenchmarkReport`."""
    rounds = options["rounds"]
    if what == "cache":
        from brats_train.benchmarks.cases import bench_cache

        return bench_cache(num_cases=options["cases"], num_rounds=rounds, size=options["size"])
    if what == "predict":
        from brats_train.benchmarks.cases import bench_predict

        return bench_predict(
            world,
            num_cases=options["cases"],
            num_rounds=rounds,
            size=options["size"],
            amp=options["amp"],
            tta=options["tta"],
        )
    with _caches(options["caches"], options["size"]) as caches:
        if what == "loader":
            from brats_train.benchmarks.loader import bench_loader

            return bench_loader(
                caches,
                world,
                batch_size=options["batch_size"] or 64,
                num_steps=options["steps"] or 20,
                num_rounds=rounds,
                resident=options["resident"],
            )
        return _measure_step(caches, world, options)


def _measure_step(caches: list[Any], world: Any, options: dict[str, Any]) -> Any:
    from brats_train.benchmarks.step import bench_step
    from brats_train.training.recipe import RECIPES, apply_settings

    default = _DEFAULTS[world.device.type]
    fixed = {
        "encoder_weights": "none",
        "batch_size": options["batch_size"] or default["batch_size"],
        "amp": options["amp"],
    }
    given = [f"{field}={value}" for field, value in fixed.items()]
    return bench_step(
        caches,
        world,
        apply_settings(RECIPES["paper"], [*given, *options["settings"]]),
        num_steps=options["steps"] or default["steps"],
        num_rounds=options["rounds"],
        resident=options["resident"],
        compile_mode=options["compile_mode"],
    )


@contextlib.contextmanager
def _caches(paths: tuple[Path, ...], size: int) -> Iterator[list[Any]]:
    """The caches at `paths`, opened, or a small synthetic one that lives as long as the context."""
    from brats_cache.format.cache_set import open_caches
    from brats_train.benchmarks.harness import build_phantom_cache, phantom_scans

    if paths:
        yield open_caches(paths)
        return
    with phantom_scans(num_cases=12, shape=(240, 240, 24)) as folder:
        yield [build_phantom_cache(folder, size=size, slices="all", val_fraction=0)]
