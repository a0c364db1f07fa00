"""The command `brats doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

__all__ = ["doctor"]


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Every finding, on standard output.")
def doctor(as_json: bool) -> int:
    """Say what this machine has, and what would not work, each with its fix.

    Exits with 1 where training is impossible.
    """
    from brats_train.doctor.check import as_text
    from brats_train.doctor.report import examine

    findings = examine()
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        click.echo(as_text(findings))
    return int(any(finding.state == "failure" for finding in findings))
