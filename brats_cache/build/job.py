"""Builds a cache as `brats build-cache` does: find cases, survey them, plan, write.

Errors that need no scan to be read are reported first. All faults of the scans are reported
together, before a byte is written.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import click

from brats_cache.build.describe_plan import describe_plan
from brats_cache.build.execute import build, open_partial
from brats_cache.build.fault_list import shorten_faults
from brats_cache.build.find import find_build_cases
from brats_cache.build.journal import Journal, partial_path, sweep
from brats_cache.build.mask_checks import check_labelled
from brats_cache.build.options import BuildOptions
from brats_cache.build.output_checks import (
    check_disk_space,
    check_is_cache,
    check_is_no_input,
    is_already_built,
    splits_path,
)
from brats_cache.build.plan import Plan, assign_splits, make_plan
from brats_cache.build.shards import Shard
from brats_cache.build.sound_cases import survey_sound_cases
from brats_cache.build.split_tables import Assignment, format_splits
from brats_cache.build.survey import HeaderCheck, Survey
from brats_cache.build.workers import Workers
from brats_cache.common.errors import (
    BratsError,
    DataFaults,
    print_message,
    print_wrapped,
    printable,
)
from brats_cache.common.files import check_replaceable, publish, write_atomically
from brats_cache.common.process import usable_cores
from brats_cache.common.progress import show_progress
from brats_cache.discovery.cases import Case, Findings

__all__ = [
    "BuildJob",
    "find_cases_of",
    "make_checked_plan",
    "open_journal",
    "prepare_folder",
    "publish_cache",
    "run_build",
    "split_table",
]


@dataclass(frozen=True, kw_only=True)
class BuildJob:
    """The inputs, output and options of one build.

    Attributes:
        data: Folders of cases (DATA arguments); not searched where there is a `manifest`.
        out: The cache to build.
        options: Everything that decides the content of the cache.
        shard: The part to build, by default the whole.
        num_workers: Number of worker processes, None for as many as usable cores.
        dry_run: Check everything and print the plan, but write nothing.
        skip_bad: Leave out cases with faults instead of stopping.
        overwrite: Replace an existing cache, or an unfinished build with other options.
        manifest: CSV file that names the files of every case.
        mask_words: Further words in file names that mark a segmentation.
        allow_unlabelled: Build although no case has a segmentation, or many that have one are test.
    """

    data: tuple[Path, ...]
    out: Path
    options: BuildOptions
    shard: Shard = field(default_factory=Shard)
    num_workers: int | None = None
    dry_run: bool = False
    skip_bad: bool = False
    overwrite: bool = False
    manifest: Path | None = None
    mask_words: tuple[str, ...] = ()
    allow_unlabelled: bool = False


def run_build(job: BuildJob) -> Path | None:
    """Builds a cache and writes the table of its splits beside it.

    An identical cache that exists already is left unchanged.

    Args:
        job: What to build.

    Returns:
        The path of the finished cache, None for a dry run.

    Raises:
        DataFaults: The scans have faults, or changed during the build.
        BratsError: Any other error. An error before rows are written leaves no file behind. After
            that the rows written so far are kept, and the same job continues with them.
    """
    try:
        return _run(job)
    except DataFaults as error:
        raise shorten_faults(error, job.out) from error


def find_cases_of(job: BuildJob, outs: Sequence[Path]) -> Findings:
    """Finds the cases of a job, and checks all that needs no scan to be read.

    Args:
        job: The job.
        outs: The caches it builds.

    Raises:
        DataFaults: There are no cases.
        BratsError: A path is taken or a device, the splits are impossible, or there are no masks.
    """
    _refuse_torchrun()
    for out in outs:
        if job.overwrite:
            check_replaceable(out)
        elif out.exists():
            check_is_cache(out)
    findings = find_build_cases(
        job.data,
        job.options.preparation.modalities,
        manifest=job.manifest,
        mask_words=job.mask_words,
        has_split_file=job.options.split_file is not None,
    )
    for note in findings.notes:
        print_message(printable(note), prefix="Note: ")
    check_is_no_input(outs, _inputs(job, findings.cases))
    _check_one_split(job, findings.cases)
    if not findings.cases:
        raise DataFaults(findings.faults, "Nothing was written.")
    if not findings.faults and not job.skip_bad:
        _check_before_reading(job, findings)
    return findings


def _check_one_split(job: BuildJob, cases: Sequence[Case]) -> None:
    """Refuses a --val-fraction beside a manifest whose column `split` decides."""
    options = job.options
    is_given = options.val_fraction != BuildOptions.val_fraction
    if is_given and options.split_file is None and any(case.split for case in cases):
        raise BratsError(
            f"--val-fraction {options.val_fraction:g}: the column split of "
            f"{printable(job.manifest or '')} decides. Leave the option out, or the column blank."
        )


def _inputs(job: BuildJob, cases: Sequence[Case]) -> list[Path]:
    """The files that a build reads."""
    scans = [scan.path for case in cases for scan in (*case.images.values(), case.mask) if scan]
    tables = (job.manifest, job.options.split_file)
    return [*scans, *(table for table in tables if table is not None)]


def _run(job: BuildJob) -> Path | None:
    findings = find_cases_of(job, [job.out])
    num_workers = min(job.num_workers or usable_cores(), len(findings.cases))
    is_there = job.out.exists() and not job.overwrite
    if is_there:
        sweep(job.out)
    with (
        open_journal(job, None if is_there else job.out) as journal,
        Workers(num_workers) as workers,
    ):
        surveys, whole = survey_sound_cases(
            findings,
            job.options,
            job.shard,
            workers,
            journal,
            skip_bad=job.skip_bad,
            out=job.out,
        )
        plan = make_checked_plan(job, surveys, whole, findings.stray_masks)
        click.echo(describe_plan(plan, job.out))
        table = split_table(plan, job.out)
        if not job.overwrite and is_already_built(job.out, plan, table):
            print_wrapped(
                f"{printable(job.out)}: exists and is identical to this build (fingerprint "
                f"{plan.fingerprint}). Nothing to do; --overwrite builds it again.",
                names=[printable(job.out)],
            )
            return job.out
        if not partial_path(job.out).exists():
            check_disk_space(job.out, plan.num_bytes)
        if job.dry_run:
            click.echo("Nothing was written (--dry-run).")
            return None
        assert journal is not None, "only a dry run and a refused one have none"
        _write(job.out, plan, table, workers, journal)
    name = shlex.quote(printable(job.out))
    click.echo(f"{name} is complete. Next: brats train --cache {name}")
    return job.out


def _check_before_reading(job: BuildJob, findings: Findings) -> None:
    """Stops a build whose splits are impossible or that has no masks before scans are read."""
    if any(case.unclaimed for case in findings.cases):  # one of these may be the mask
        assign_splits(findings.cases, job.options)
    else:
        _check_labelled(job, findings.cases, findings.stray_masks)


def make_checked_plan(
    job: BuildJob,
    surveys: Sequence[Survey],
    whole: Sequence[HeaderCheck] | None,
    stray_masks: Sequence[Path],
) -> Plan:
    """Makes the plan, prints its warnings, and checks that labelled cases stay labelled."""
    data_dirs = tuple(dict.fromkeys(survey.case.data_dir for survey in surveys))
    plan = make_plan(surveys, data_dirs, job.options, job.shard, whole)
    for warning in plan.warnings:
        print_message(printable(warning), prefix="Warning: ")
    cases = [one.case for one in (surveys if whole is None else whole)]
    _check_labelled(job, cases, stray_masks)
    return plan


def _check_labelled(job: BuildJob, cases: Sequence[Case], stray_masks: Sequence[Path]) -> None:
    """Assigns the splits and checks that labelled cases stay labelled, unless that is allowed."""
    assignments, _ = assign_splits(cases, job.options)
    if job.allow_unlabelled:
        return
    check_labelled(
        cases,
        {case: assignment.split for case, assignment in assignments.items()},
        is_decided=job.options.split_file is not None or any(case.split for case in cases),
        stray_masks=stray_masks,
    )


def _write(out: Path, plan: Plan, table: bytes | None, workers: Workers, journal: Journal) -> None:
    """Writes the cache and its table of splits, and moves them to their final names."""
    state = open_partial(plan, journal)
    if state.done:
        print_message(f"Resuming: {len(state.done)} of {len(plan.cases)} cases are done.")
    with show_progress("Writing", "rows") as report:
        build(plan, journal, state, workers, report)
    publish_cache(out, table, journal)


def publish_cache(out: Path, table: bytes | None, journal: Journal) -> None:
    """Moves a complete file under construction and its table of splits to their final names."""
    if table is not None:
        write_atomically(splits_path(out), table)  # first, so that no cache is without its table
    publish(journal.partial, out)
    journal.remove()


def _refuse_torchrun() -> None:
    if "TORCHELASTIC_RUN_ID" in os.environ or "LOCAL_RANK" in os.environ:
        raise BratsError(
            "brats build-cache starts workers of its own; under torchrun every process would build "
            "the same file. Run it without torchrun; on several machines, --shards N with a "
            "--scheduler, or a part each: --shard I/N."
        )


@contextmanager
def open_journal(
    job: BuildJob, out: Path | None, parts: Sequence[Path] = ()
) -> Iterator[Journal | None]:
    """Opens the journal of a job, and says at its end what is kept.

    A job that fails before rows are written removes its journal and the folders it made.

    Args:
        job: The job.
        out: The cache that the journal belongs to; None for a job that writes nothing.
        parts: The caches of the parts whose surveys the journal holds.

    Yields:
        The journal; None without `out` and for a dry run.
    """
    if job.dry_run or out is None:
        yield None
        return
    made = prepare_folder(out.parent)
    journal = Journal(out, job.options.preparation, start_anew=job.overwrite)
    try:
        yield journal
    except BratsError:
        if journal.has_plan or _is_unfinished(parts):
            print_message(
                "What is done is kept: the same command goes on with it.", prefix="Note: "
            )
        else:
            journal.remove()
            with suppress(OSError):  # another process uses one, or a list of faults lies there
                for folder in made:
                    folder.rmdir()
        raise
    except KeyboardInterrupt:
        print_message("Interrupted. The same command goes on where this one stopped.")
        raise
    finally:
        journal.close()


def _is_unfinished(parts: Sequence[Path]) -> bool:
    """Whether some parts of a set are begun or complete, but not all complete."""
    num_complete = sum(part.exists() for part in parts)
    return 0 < num_complete < len(parts) or any(partial_path(part).exists() for part in parts)


def split_table(plan: Plan, out: Path) -> bytes | None:
    """Returns the table of the splits of a plan's patients, which lies beside the cache `out`.

    None where the person's own --split-file lies there, which says as much or more.
    """
    given, beside = plan.options.split_file, splits_path(out)
    if given is not None and beside.exists() and beside.samefile(given):
        return None
    return format_splits(
        {
            case.survey.case.patient: Assignment(split=case.split, fold=case.fold)
            for case in plan.cases
        }
    )


def prepare_folder(folder: Path) -> list[Path]:
    """Makes a folder and its parents; returns the newly made folders, innermost first."""
    absent = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BratsError(f"{printable(folder)}: cannot be made ({error.strerror}).") from error
    return absent
