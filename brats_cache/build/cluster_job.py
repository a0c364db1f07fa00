"""Builds all parts of a sharded cache on a cluster, as `brats build-cache --shards N` does.

First all cases of all parts are surveyed, so that their faults are reported together and the splits
and label schemes are those of the whole. Then each part is written by one worker, which locks the
part's journal: of a lost worker the kernel frees the lock, and another worker goes on where the
journal ends. The surveys are kept in a journal of the whole set, so that the same command does not
read the scans again, until all parts are complete.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from brats_cache.build.cluster import Cluster, Place, connect
from brats_cache.build.describe_plan import describe_plan
from brats_cache.build.execute import build, open_partial
from brats_cache.build.fault_list import shorten_faults
from brats_cache.build.job import (
    BuildJob,
    find_cases_of,
    make_checked_plan,
    open_journal,
    publish_cache,
    split_table,
)
from brats_cache.build.journal import Journal, journal_path, partial_path
from brats_cache.build.output_checks import check_disk_space, is_already_built
from brats_cache.build.plan import Plan, make_part_plans
from brats_cache.build.shards import Shard
from brats_cache.build.sound_cases import survey_sound_cases
from brats_cache.build.workers import InProcess
from brats_cache.common.errors import BratsError, DataFaults, printable
from brats_cache.common.process import usable_cores
from brats_cache.common.progress import show_progress

__all__ = ["run_cluster_build"]

# A worker that is lost to the scheduler may still hold the lock of its part: until its process is
# killed, or, on NFS, until the lease of a dead machine ends after 90 s.
LOCK_TIMEOUT = 120.0


def run_cluster_build(job: BuildJob, num_parts: int, address: str) -> list[Path] | None:
    """Builds all parts of a cache on the workers of a cluster.

    Args:
        job: What to build; its `out` gives the parts their names, see `Shard.path_of`, and its
            `num_workers` is the size of a local cluster.
        num_parts: Number of parts.
        address: Of a dask.distributed scheduler, or "local".

    Returns:
        The paths of the parts, None for a dry run.

    Raises:
        DataFaults: The scans have faults, or changed during the build.
        BratsError: Any other error. What is written is kept, and the same job continues with it.
    """
    try:
        return _run(job, num_parts, address)
    except DataFaults as error:
        raise shorten_faults(error, job.out) from error


def _run(job: BuildJob, num_parts: int, address: str) -> list[Path] | None:
    outs = [Shard(index=n, count=num_parts).path_of(job.out) for n in range(1, num_parts + 1)]
    findings = find_cases_of(job, outs)
    if num_parts > len(findings.cases):
        raise BratsError(f"--shards {num_parts}: there are only {len(findings.cases)} cases.")
    set_path = job.out.with_name(f"{job.out.stem}-of-{num_parts}{job.out.suffix}")
    paths = [job.out, *job.data, *([job.manifest] if job.manifest else [])]
    place = Place(
        folder=None if all(path.is_absolute() for path in paths) else Path.cwd(),
        witness=None if job.dry_run else journal_path(set_path),
    )
    num_workers = min(job.num_workers or usable_cores(), len(findings.cases))
    with (
        connect(address, num_workers, place) as cluster,
        open_journal(job, set_path, outs) as journal,
    ):
        surveys, _ = survey_sound_cases(
            findings,
            job.options,
            Shard(),
            cluster,
            journal,
            skip_bad=job.skip_bad,
            out=job.out,
        )
        if num_parts > len(surveys):
            raise BratsError(f"--shards {num_parts}: only {len(surveys)} cases are without faults.")
        plan = make_checked_plan(job, surveys, None, findings.stray_masks)
        click.echo(describe_plan(plan, job.out.with_name(_all_parts(job.out, num_parts))))
        tasks = _tasks_of(job, outs, make_part_plans(surveys, job.options, num_parts))
        new = [task for task in tasks if not partial_path(task.out).exists()]
        check_disk_space(job.out, sum(task.plan.num_bytes for task in new))
        if job.dry_run:
            click.echo("Nothing was written (--dry-run).")
            return None
        _write_parts(cluster, tasks, plan.num_rows)
        assert journal is not None, "only a dry run has none"
        journal.remove()
    if tasks:
        names = printable(job.out.with_name(_all_parts(job.out, num_parts, "*")))
        click.echo(
            f"{num_parts} parts are complete. Next: brats train $(printf -- '--cache %s ' {names})"
        )
    else:
        click.echo(
            "All parts exist and are identical to this build; --overwrite builds them again."
        )
    return outs


@dataclass(frozen=True, kw_only=True)
class _PartTask:
    """One part to write, as sent to a worker.

    Attributes:
        out: The cache of the part.
        plan: Its plan.
        table: Content of the table of splits beside it, None for none.
        overwrite: Replace an existing cache.
    """

    out: Path
    plan: Plan
    table: bytes | None
    overwrite: bool


def _tasks_of(job: BuildJob, outs: Sequence[Path], plans: Sequence[Plan]) -> list[_PartTask]:
    """Returns the parts that are not built yet. Raises `BratsError` where another cache exists."""
    tasks = []
    for out, plan in zip(outs, plans, strict=True):
        table = split_table(plan, out)
        if job.overwrite or not is_already_built(out, plan, table):
            tasks.append(_PartTask(out=out, plan=plan, table=table, overwrite=job.overwrite))
    return tasks


def _write_parts(cluster: Cluster, tasks: Sequence[_PartTask], num_rows: int) -> None:
    """Writes parts; the bar counts the rows of all parts of the set."""
    num_done = [0] * len(tasks)
    num_finished = num_rows - sum(task.plan.num_rows for task in tasks)
    with show_progress("Writing", "rows") as report:

        def progress(index: int, num_rows_done: int) -> None:
            num_done[index] = num_rows_done
            report(num_finished + sum(num_done), num_rows)

        names = [f"part {task.plan.shard} ({printable(task.out)})" for task in tasks]
        cluster.run(_write_part, tasks, names, progress)


def _write_part(task: _PartTask, report: Callable[[int, int], None]) -> None:
    """Writes one part, in a worker; goes on with what an earlier one has begun."""
    journal = Journal(
        task.out,
        task.plan.options.preparation,
        start_anew=task.overwrite,
        lock_timeout=LOCK_TIMEOUT,
    )
    try:
        if not task.overwrite and is_already_built(task.out, task.plan, task.table):
            journal.remove()  # another worker has finished it since
            return
        build(task.plan, journal, open_partial(task.plan, journal), InProcess(), report)
        publish_cache(task.out, task.table, journal)
    except BratsError:
        if not journal.has_plan:
            journal.remove()
        raise
    finally:
        journal.close()


def _all_parts(out: Path, num_parts: int, number: str = "") -> str:
    """The names of all parts as a shell writes them: brats-{1..3}-of-3.h5, or with a star."""
    number = number or (f"{{1..{num_parts}}}")
    return f"{out.stem}-{number}-of-{num_parts}{out.suffix}" if num_parts > 1 else out.name
