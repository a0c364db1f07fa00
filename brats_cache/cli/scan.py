"""The command `brats scan`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from brats_cache.common.errors import (
    BratsError,
    DataFaults,
    LabelSchemeError,
    print_message,
    printable,
)
from brats_cache.common.files import write_atomically
from brats_cache.common.text import first_few
from brats_cache.discovery.cases import Case, find_cases
from brats_cache.discovery.manifest import manifest_table
from brats_cache.imaging.scheme_detection import detect_scheme

__all__ = ["scan"]


@click.command("scan")
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("cases.csv"),
    show_default=True,
    help="The table to write; its paths are relative to it.",
)
@click.option(
    "--mask-word",
    "mask_words",
    multiple=True,
    metavar="WORD",
    help="A word in file names that means a mask; may be repeated.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing table.")
def scan(data: tuple[Path, ...], out: Path, mask_words: tuple[str, ...], overwrite: bool) -> None:
    """List the cases found under DATA, as a table to correct.

    Correct it and give it to build-cache or predict as --manifest. Only names are read; a file
    that a case lacks is a blank cell.
    """
    if out.exists() and not overwrite:
        raise BratsError(
            f"{printable(out)}: exists. Choose another --out, or replace it with --overwrite."
        )
    findings = find_cases(data, None, mask_words=mask_words)
    for note in findings.notes:
        print_message(printable(note), prefix="Note: ")
    if not findings.cases:
        raise DataFaults(findings.faults, "Nothing was written.")
    if findings.faults:
        advice = "The table has the other cases; add these by hand."
        print_message(DataFaults(findings.faults, advice), prefix="Warning: ")
    _warn_of_candidates(findings.cases)
    schemes = {case.id: _scheme_of(case) for case in findings.cases}
    write_atomically(out, manifest_table(findings.cases, out.parent, schemes))
    num_masks = sum(case.mask is not None for case in findings.cases)
    num_patients = len({case.patient for case in findings.cases})
    click.echo(
        f"{printable(out)}: {len(findings.cases)} cases of {num_patients} patients, {num_masks} "
        f"with a mask. Correct it, then: brats build-cache --manifest {shlex.quote(printable(out))}"
    )


def _warn_of_candidates(cases: tuple[Case, ...]) -> None:
    files = [path for case in cases for path in case.unclaimed]
    if files:
        print_message(
            f"{sum(bool(case.unclaimed) for case in cases)} cases have no mask, but files that "
            f"could be one ({printable(first_few(files, 3))}). Where one is, enter it in the "
            "column seg, or name its word with --mask-word.",
            prefix="Warning: ",
        )


def _scheme_of(case: Case) -> str:
    """The label scheme that a dataset.json tells, "" where none does."""
    if not case.labels:
        return ""
    values = {case.id: frozenset[int]()}
    try:
        return detect_scheme(case.naming, values, dataset_labels=case.labels).name
    except LabelSchemeError:
        return ""
