"""What a person can ask of scripts/bench_peers; needs nothing but Python."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

__all__ = ["BENCHMARKS", "PEERS", "parse"]

BENCHMARKS = ("cache", "evaluation", "feeding", "epoch")
PEERS = ("monai", "torchio", "nnunet", "surface-distance", "plain")


def parse(description: str, words: list[str] | None = None) -> argparse.Namespace:
    """Parses the command line, or `words`."""
    parser = argparse.ArgumentParser(
        prog="bench_peers",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("data", nargs="*", type=Path, metavar="DATA", help="folders of cases with masks")
    add("--out", type=Path, help="folder for results.json, results.md and figures", required=True)
    add("--only", type=_some_of(BENCHMARKS), default=BENCHMARKS, help=f"of {','.join(BENCHMARKS)}")
    add("--peers", type=_some_of(PEERS), default=PEERS, help=f"of {','.join(PEERS)}")
    add("--rounds", type=_positive, default=5, help="timed rounds (default: 5)")
    add("--workers", type=_positive, default=2, help="worker processes, and threads (default: 2)")
    add("--modalities", type=_names, default=("t1", "t1ce", "t2", "flair"))
    add("--cases", type=_positive, default=16, help="synthetic cases where no DATA is named")
    add("--shape", type=_shape, default="240x240x155", help="of synthetic cases")
    add("--gz", action="store_true", help="synthetic cases as .nii.gz")
    add("--size", type=_positive, default=256, help="side of a slice in pixels (default: 256)")
    add("--batch-size", type=_positive, default=64, help="of feeding (default: 64)")
    add("--epoch-slices", type=_positive, default=128, help="slices of an epoch (default: 128)")
    add("--epoch-batch-size", type=_positive, default=8, help="of the epoch (default: 8)")
    add("--folder", type=Path, help="temporary files go here, 0.6 GB a case")
    add("--python", type=Path, help="an interpreter that has brats and its peers")
    add("--overwrite", action="store_true", help="measure again what OUT already has")
    add("--draw", action="store_true", help="only write table and figures of OUT's results.json")
    return parser.parse_args(words)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a number from 1")
    return int(text)


def _shape(text: str) -> tuple[int, int, int]:
    lengths = tuple(map(_positive, text.split("x")))
    if len(lengths) != 3:
        raise argparse.ArgumentTypeError(f"{text}: expected X, Y and Z as in 240x240x155")
    return lengths


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _some_of(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def parse_names(text: str) -> tuple[str, ...]:
        names = _names(text)
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not of {', '.join(known)}")
        return tuple(name for name in known if name in names)

    return parse_names
