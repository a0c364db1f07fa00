"""The results of the benchmarks: one JSON file, and the table that is made from it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brats_cache.common.errors import BratsError
from brats_cache.common.files import write_atomically
from brats_train.benchmarks.harness import Throughput
from brats_train.training.rendering import render
from peers.figures import draw_bars, number, shown_rounds

__all__ = ["as_markdown", "read_results", "write_results"]

JSON_NAME, TABLE_NAME = "results.json", "results.md"
Results = dict[str, Any]  # by benchmark, as `peers.ways` writes them


def read_results(out: Path) -> Results:
    """Reads what is in a folder; empty where there is nothing yet."""
    path = out / JSON_NAME
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise BratsError(f"{path}: cannot be read ({error}). Name another --out.") from error


def write_results(out: Path, results: Results) -> None:
    """Writes JSON, table and figures."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / JSON_NAME, json.dumps(results, indent=1).encode() + b"\n")
    write_atomically(out / TABLE_NAME, as_markdown(results).encode())
    for name, result in results.items():
        write_atomically(out / f"{name}.svg", render(draw_bars(result), ["svg"])["svg"])


def as_markdown(results: Results) -> str:
    """A table for each benchmark, its machine, and the notes of its ways."""
    lines = ["# brats beside its peers", ""]
    lines += ["Written by `scripts/bench_peers`; every round is in `results.json`.", ""]
    for name, result in results.items():
        lines += [f"## {name}: {result['title']}", "", _about(result), ""]
        lines += [*_table(result), "", f"![{result['title']}]({name}.svg)", ""]
        lines += [f"- **{way}**: {entry['note']}" for way, entry in result["ways"].items()]
        lines += ["", *(line for remark in result["remarks"] for line in (remark, ""))]
    return "\n".join(lines).rstrip() + "\n"


def _table(result: Mapping[str, Any]) -> list[str]:
    unit = result["unit"]
    what = f"s a {unit}" if result["shown"] == "seconds" else f"{unit}s/s"
    columns = result["columns"]
    heads = ["", what, "brats: times as fast", "by round", *columns]
    throughput = Throughput(
        by_name={way: tuple(entry["rounds"]) for way, entry in result["ways"].items()}
    )
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for way, entry in result["ways"].items():
        compared = entry["compared"]
        pairs = zip(throughput.by_name[compared], throughput.by_name[way], strict=True)
        ratios = [ours / theirs for ours, theirs in pairs]
        cells = [
            f"**{way}**" if entry["peer"] == "brats" else way,
            number(statistics.median(shown_rounds(result, way))),
            number(throughput.ratio(compared, way)),
            "" if way == compared else f"{number(min(ratios))} to {number(max(ratios))}",
            *(number(entry[column]) for column in columns),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _about(result: Mapping[str, Any]) -> str:
    here = result["machine"]
    settings = ", ".join(f"{name} {value}" for name, value in result["settings"].items())
    versions = {"brats": here["brats"], "Python": here["python"], "torch": here["torch"]}
    listed = ", ".join(f"{name} {value}" for name, value in (versions | result["versions"]).items())
    num_rounds = len(next(iter(result["ways"].values()))["rounds"])
    rounds = f"medians of {num_rounds} rounds" if num_rounds > 1 else "one round"
    return (
        f"{result['date']}, {here['cpu']}, {here['cores']} cores, {here['memory_gb']} GB, Linux "
        f"{here['kernel']}, load average {result['load_average_before']:.1f} before; {rounds}. "
        f"{settings[0].upper()}{settings[1:]}. {listed}."
    )
