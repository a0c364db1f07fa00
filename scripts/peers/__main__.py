"""Measures what scripts/bench_peers is asked to, in the environment that has the peers."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
from argparse import Namespace
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from brats_cache.api import build_cache
from brats_cache.common.errors import BratsError, print_message
from brats_cache.synthetic.write_phantom import write_phantom
from peers.arguments import parse
from peers.job import Job, find_peer_cases
from peers.results import read_results, write_results
from peers.run_one import run_one

MODULES = {  # of the peers
    "monai": "monai",
    "torchio": "torchio",
    "nnunet": "nnunetv2",
    "surface-distance": "surface_distance",
    "plain": "nibabel",
}


def main() -> int:
    """Returns the exit code."""
    options = parse("")
    try:
        if options.draw:
            write_results(options.out, read_results(options.out))
            return 0
        return _measure(options)
    except BratsError as error:
        print_message(error)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted; what was measured is in {options.out}", file=sys.stderr)
        return 130


def _measure(options: Namespace) -> int:
    known = [name for name in options.only if name in read_results(options.out)]
    if known and not options.overwrite:
        raise BratsError(
            f"{options.out}: has results of {', '.join(known)}. Name another --out, or add "
            "--overwrite to measure them again."
        )
    missing = [peer for peer in options.peers if find_spec(MODULES[peer]) is None]
    if missing:
        raise BratsError(
            f"{sys.executable}: lacks {', '.join(missing)}. Leave them out of --peers, or leave "
            "--python out, so that an environment is made."
        )
    failed = []
    with _job(options) as job:
        if set(options.only) - {"cache"}:
            build_cache(
                list(job.data),
                job.cache_path,
                modalities=job.modalities,
                size=job.size,
                val_fraction=0,
            )
        for name in options.only:
            # A process each, so that none starts with the memory and threads of another.
            process = multiprocessing.get_context("spawn").Process(
                target=run_one, args=(name, job, options.out), name=name
            )
            process.start()
            process.join()
            if process.exitcode:
                failed.append(name)
    if failed:
        raise BratsError(f"{', '.join(failed)}: failed, as said above.")
    print((options.out / "results.md").read_text())
    return 0


@contextlib.contextmanager
def _job(options: Namespace) -> Iterator[Job]:
    """The job, in a temporary folder; with synthetic cases where no data is named."""
    with TemporaryDirectory(prefix="brats-peers-", dir=options.folder) as name:
        folder = Path(name)
        data = tuple(path.resolve() for path in options.data)
        about = "of " + ", ".join(path.name for path in data)
        if not data:
            data = (folder / "scans",)
            shape = " x ".join(map(str, options.shape))
            about = f"synthetic of {shape}, {'.nii.gz' if options.gz else '.nii'}"
            write_phantom(data[0], num_cases=options.cases, shape=options.shape, gz=options.gz)
        cases = find_peer_cases(data, options.modalities)
        yield Job(
            data=data,
            about=f"{len(cases)} {about}",
            cases=cases,
            modalities=options.modalities,
            size=options.size,
            workers=options.workers,
            rounds=options.rounds,
            batch_size=options.batch_size,
            epoch_slices=options.epoch_slices,
            epoch_batch_size=options.epoch_batch_size,
            peers=options.peers,
            folder=folder,
        )


if __name__ == "__main__":
    sys.exit(main())
