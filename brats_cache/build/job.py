"""What `brats build-cache` does, step by step: find, survey, refuse or skip, plan, build, say so.

Whatever can be told without reading a scan is told first; whatever is wrong with the scans is told
together, before a byte is written.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import click

from brats_cache.build.describe_plan import describe_plan, differences
from brats_cache.build.execute import build, check_headers, open_partial, survey_cases
from brats_cache.build.journal import Journal, sweep
from brats_cache.build.mask_checks import brain_mask_faults, check_labelled
from brats_cache.build.plan import BuildOptions, Plan, assign_splits, make_plan
from brats_cache.build.schemes import detect_schemes
from brats_cache.build.shards import Shard
from brats_cache.build.splits import Assignment, split_table
from brats_cache.build.survey import HeaderCheck, Survey
from brats_cache.build.workers import Workers
from brats_cache.common.errors import BratsError, DataFaults, Fault, print_message, printable
from brats_cache.common.files import publish, write_atomically
from brats_cache.common.names import check_file_name
from brats_cache.common.process import usable_cores
from brats_cache.common.progress import show_progress
from brats_cache.common.text import count_by_kind, human_bytes
from brats_cache.discovery.cases import Case, Findings, find_cases
from brats_cache.discovery.manifest import read_manifest
from brats_cache.format.reader import open_cache
from brats_cache.imaging.scan_check import PREPARING_TOOLS

__all__ = ["BuildJob", "run_build", "splits_path"]

DISK_MARGIN = 64 << 20
MAX_FAULTS_SHOWN = 20  # more are written to a file as well


@dataclass(frozen=True, kw_only=True)
class BuildJob:
    """What `brats build-cache` was asked to do."""

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

    An identical cache that is there already is left as it is.

    Args:
        job: What to build.

    Returns:
        The path of the finished cache, None for a dry run.

    Raises:
        DataFaults: Everything that is wrong with the scans; nothing was written.
        BratsError: Nothing was written, or, once rows are being written, what is done is kept and
            the same job continues with it.
    """
    try:
        return _run(job)
    except DataFaults as error:
        raise _shortened(error, job.out) from error


def _run(job: BuildJob) -> Path | None:
    _refuse_torchrun()
    if job.out.exists() and not job.overwrite:
        _check_replaceable(job.out)
    findings = _find(job)
    for note in findings.notes:
        print_message(printable(note), prefix="Note: ")
    if not findings.cases:
        raise DataFaults(findings.faults, "Nothing was written.")
    if not findings.faults and not job.skip_bad:
        assign_splits(findings.cases, job.options)  # refuses in the first second, not the last
    num_workers = min(job.num_workers or usable_cores(), len(findings.cases))
    with _journal(job) as journal, Workers(num_workers) as workers:
        surveys, whole = _survey(job, findings, workers, journal)
        data_dirs = tuple(dict.fromkeys(survey.case.data_dir for survey in surveys))
        plan = make_plan(surveys, data_dirs, job.options, job.shard, whole)
        for warning in plan.warnings:
            print_message(printable(warning), prefix="Warning: ")
        if not job.allow_unlabelled:
            everyone = surveys if whole is None else whole
            assignments, _ = assign_splits([one.case for one in everyone], job.options)
            check_labelled(
                [one.case for one in everyone],
                {case: side.split for case, side in assignments.items()},
                decided_by=job.options.split_file or job.manifest,
            )
        click.echo(describe_plan(plan, job.out))
        table = split_table(_sides(plan))
        if not job.overwrite and _is_there(job.out, plan, table):
            click.echo(
                f"{printable(job.out)}: exists and is identical to this build (fingerprint "
                f"{plan.fingerprint}). Nothing to do; --overwrite builds it again."
            )
            return job.out
        if journal is None or not journal.partial.exists():
            _check_disk(job.out, plan.num_bytes)
        if job.dry_run:
            click.echo("Nothing was written (--dry-run).")
            return None
        assert journal is not None, "only a dry run and a refused one have none"
        state = open_partial(plan, journal)
        if state.done:
            print_message(f"Resuming: {len(state.done)} of {len(plan.cases)} cases are done.")
        with show_progress("Writing", "rows") as report:
            build(plan, journal, state, workers, report)
        write_atomically(splits_path(job.out), table)  # first: where the cache is, it is too
        publish(journal.partial, job.out)
        journal.remove()
    name = shlex.quote(printable(job.out))
    click.echo(f"{name} is complete. Next: torchrun brats train --cache {name}")
    return job.out


def _find(job: BuildJob) -> Findings:
    """The cases of the manifest, else those under the DATA arguments."""
    modalities = job.options.preparation.modalities
    if job.manifest is not None:
        findings = read_manifest(job.manifest, modalities)
    else:
        findings = find_cases(job.data, modalities, mask_words=job.mask_words)
    faults = [fault for case in findings.cases if (fault := _id_fault(case))]
    bad = {fault.case for fault in faults}
    return replace(
        findings,
        cases=tuple(case for case in findings.cases if case.id not in bad),
        faults=(*findings.faults, *faults),
    )


def _id_fault(case: Case) -> Fault | None:
    """A fault where masks and pages of a case could not be called after its id."""
    try:
        check_file_name(case.id)
    except ValueError as error:
        return Fault(
            case=case.id,
            path=next(iter(case.images.values())).path,
            found=f"an id that cannot be a file name: {error}",
            expected="an id that masks can be called after",
        )
    return None


def _shortened(error: DataFaults, out: Path) -> DataFaults:
    """`error` with the full list in a file beside the cache where it is long."""
    if len(error.faults) <= MAX_FAULTS_SHOWN:
        return error
    path = out.with_name(f"{out.name}.faults.txt")
    lines = "".join(f"{fault}\n" for fault in error.faults)
    try:
        write_atomically(path, lines.encode())
    except BratsError:  # the message is what matters
        return error
    advice = f"{error.advice} All {len(error.faults)} are listed in {printable(path)}.".strip()
    return DataFaults(error.faults, advice)


def splits_path(out: Path) -> Path:
    """Where the split of cache `out` is written for people to read: brats.splits.csv."""
    return out.with_name(f"{out.stem}.splits.csv")


def _refuse_torchrun() -> None:
    if "TORCHELASTIC_RUN_ID" in os.environ or "LOCAL_RANK" in os.environ:
        raise BratsError(
            "brats build-cache starts workers of its own; under torchrun every process would build "
            "the same file. Run it without torchrun; on several machines, a part each: --shard I/N."
        )


@contextmanager
def _journal(job: BuildJob) -> Iterator[Journal | None]:
    """The journal of a job that will write. A job that fails before it writes leaves nothing."""
    if job.dry_run or (job.out.exists() and not job.overwrite):
        sweep(job.out)
        yield None
        return
    made = _prepare_folder(job.out.parent)
    journal = Journal(job.out, job.options.preparation, start_anew=job.overwrite)
    try:
        yield journal
    except BratsError:
        if journal.has_plan:
            print_message(
                "What is done is kept: the same command goes on with it.", prefix="Note: "
            )
        else:
            journal.remove()
            for folder in made:
                folder.rmdir()
        raise
    except KeyboardInterrupt:
        print_message("Interrupted. The same command goes on where this one stopped.")
        raise
    finally:
        journal.close()


def _survey(
    job: BuildJob, findings: Findings, workers: Workers, journal: Journal | None
) -> tuple[list[Survey], list[HeaderCheck] | None]:
    """The surveys of this part's sound cases and, where it is a part, what is known of all sound
    ones. Raises `DataFaults` for the others, or says that they are left out."""
    preparation, is_part = job.options.preparation, job.shard.is_part
    with show_progress("Headers and masks" if is_part else "Headers", "cases") as report:
        known, early = check_headers(
            findings.cases, preparation, workers, report, with_masks=is_part
        )
    if early:
        bad = len({fault.case for fault in early})
        what = f"{bad} of {len(findings.cases)} cases {'has' if bad == 1 else 'have'} faults"
        print_message(
            f"{what}; the scans are read on, to tell all faults together.", prefix="Note: "
        )
    own = job.shard.share(findings.cases)
    if not own:
        raise BratsError(f"--shard {job.shard}: there are only {len(findings.cases)} cases.")
    looks: list[tuple[str, tuple[str, ...]]] = []
    with show_progress("Checking", "cases") as report:
        surveys, faults = survey_cases(own, preparation, workers, report, journal, looks)
    lines = count_by_kind([(one.case.id, one.doubts) for one in known], len(known))
    lines += count_by_kind(looks, len(own))
    if any(kinds for _, kinds in looks):
        lines.append(
            "a model trained on these scans suits others like them alone; scans are prepared with "
            f"{PREPARING_TOOLS}"
        )
    for line in lines:
        print_message(line, prefix="Warning: ")
    _, scheme_faults = detect_schemes(known if is_part else surveys, job.options.label_scheme)
    common = [*findings.faults, *(early if is_part else ()), *scheme_faults]
    faults += brain_mask_faults(surveys)
    # Which cases the others know to be bad must not depend on what only this part has read.
    bad_for_all = {fault.case for fault in common}
    ordered = sorted(
        dict.fromkeys([*common, *faults]), key=lambda fault: (fault.case, str(fault.path or ""))
    )
    sound = _leave_out(job, ordered, surveys)
    whole = [one for one in known if one.case.id not in bad_for_all]
    return sound, whole if is_part else None


def _leave_out(job: BuildJob, faults: Sequence[Fault], surveys: Sequence[Survey]) -> list[Survey]:
    """The surveys without fault; raises `DataFaults` for the others, or says that they are left
    out. What belongs to no case cannot be left out."""
    bad = {fault.case for fault in faults}
    sound = [survey for survey in surveys if survey.case.id not in bad]
    if not faults:
        return sound
    if not job.skip_bad:
        can_skip = "" not in bad and sound
        way = "Correct them" + (", or leave those cases out with --skip-bad." if can_skip else ".")
        raise DataFaults(faults, f"Nothing was written. {way}")
    if "" in bad:
        of_no_case = [fault for fault in faults if not fault.case]
        advice = (
            "Nothing was written. --skip-bad leaves out cases; these belong to none. Correct them."
        )
        raise DataFaults(of_no_case, advice)
    if not sound:
        raise DataFaults(faults, "Nothing was written: no case is without fault.")
    print_message(
        DataFaults(faults, f"{len(sound)} cases remain."), prefix="Warning: left out for "
    )
    return sound


def _sides(plan: Plan) -> dict[str, Assignment]:
    return {
        case.survey.case.patient: Assignment(split=case.split, fold=case.fold)
        for case in plan.cases
    }


def _check_replaceable(out: Path) -> None:
    """Refuses at once what exists and is no cache, which no survey could compare with."""
    try:
        open_cache(out)
    except BratsError as error:
        raise BratsError(
            f"{printable(out)}: exists and is no cache this program can read (brats info says "
            "why). Choose another --out, or replace it with --overwrite."
        ) from error


def _is_there(out: Path, plan: Plan, table: bytes) -> bool:
    """Whether the same cache is there already. Raises `BratsError` for a cache, or a table of
    splits, that says something else."""
    if out.exists():
        if found := differences(plan, open_cache(out)):
            shown = "\n".join(f"  {line}" for line in found[:10])
            more = f"\n  and {len(found) - 10} more" if len(found) > 10 else ""
            raise BratsError(
                f"{out}: exists and differs from this build:\n{shown}{more}\n"
                "Choose another --out, or replace it with --overwrite."
            )
        return True
    path = splits_path(out)
    if path.exists() and path.read_bytes() != table:
        raise BratsError(
            f"{printable(path)}: exists, and this build would put other patients or splits there. "
            "Move it away, choose another --out, or replace it with --overwrite."
        )
    return False


def _prepare_folder(folder: Path) -> list[Path]:
    """Makes a folder and those above it; the ones that were not there, innermost first."""
    absent = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BratsError(f"{printable(folder)}: cannot be made ({error.strerror}).") from error
    return absent


def _check_disk(out: Path, num_bytes: int) -> None:
    folder = next(parent for parent in out.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(folder).free
    if free < num_bytes + DISK_MARGIN:
        raise BratsError(
            f"{printable(out)}: needs {human_bytes(num_bytes)}, the disk has {human_bytes(free)} "
            "free. Free some, choose another --out, or fewer --slices."
        )
