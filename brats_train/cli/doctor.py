"""The command `brats doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

__all__ = ["doctor"]


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print all checks as JSON.")
def doctor(as_json: bool) -> int:
    """Check this machine: what it has, what would not work, and how to fix it.

    Exits with 1 where training is impossible.
    """
    from brats_train.doctor.check import format_checks
    from brats_train.doctor.report import run_checks

    checks = run_checks()
    if as_json:
        click.echo(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        click.echo(format_checks(checks))
    return int(any(check.state == "failure" for check in checks))
