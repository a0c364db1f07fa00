"""What an unfinished build has done: a file of JSON lines beside the cache to be.

A killed build leaves `OUT.partial`, the file under construction, and `OUT.journal`. The journal
holds what the survey found, so that it need not be repeated for scans that have not changed; then
the plan; then a mark for each case whose rows are written.

A line that is torn or damaged counts as not written: what it noted is done again, see
`journal_lines`. Without the line of the plan the marks mean nothing and the rows are written anew;
without the first line nothing of the journal is used.

A mark is written as soon as the rows are, without waiting for the disk: what a killed process wrote
the system still holds. After a crash of the machine it may not, so marks made before the last
start of the system are believed only where the rows still have their checksum.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from brats_cache import __version__
from brats_cache.build.journal_lines import JournalState, format_line, parse_lines
from brats_cache.build.plan import Plan, describe_options
from brats_cache.build.survey import Source, Survey
from brats_cache.build.writer import Layout
from brats_cache.common.errors import BratsError, printable
from brats_cache.common.files import open_regular_file, sync_folder
from brats_cache.discovery.cases import Case
from brats_cache.format.checksum import FORMAT_VERSION
from brats_cache.imaging.preprocess import Normalization, Preparation

__all__ = ["Journal", "file_marks", "partial_path", "sweep"]

_NUM_NAMED = 8  # differences quoted


def partial_path(out: Path) -> Path:
    """The file under construction that becomes `out`."""
    return out.with_name(out.name + ".partial")


class Journal:
    """The journal of one build, locked against a second one of the same file."""

    def __init__(self, out: Path, preparation: Preparation, *, start_anew: bool) -> None:
        """Opens the journal of `out`, or begins one.

        `start_anew` drops what is there where it cannot be gone on with. Raises `BratsError` where
        another build holds it, or where rows were written for another `preparation` or by another
        version and `start_anew` is not set.
        """
        self.path = out.with_name(out.name + ".journal")
        self.partial = partial_path(out)
        self._may_drop = start_anew
        self._boot = _boot_id()
        self._descriptor = _open_locked(self.path)
        try:
            self._state = parse_lines(_content_of(self.path))
            self._begin(_head(preparation))
        except BaseException:
            self.close()
            raise

    def find(self, case: Case) -> Survey | None:
        """The survey of a case whose files have not changed since."""
        kept = self._state.surveys.get(case.id)
        if kept is None or kept["files"] != file_marks(case):
            return None
        try:
            return _survey(case, kept["content"])
        except (KeyError, TypeError, ValueError):
            return None  # of another form, so it is surveyed anew

    def keep(self, survey: Survey, files: list[list[Any]]) -> None:
        """Remembers a survey; `files` are the `file_marks` from before the files were read."""
        self._append({"survey": survey.case.id, "files": files, "content": _content(survey)})

    def agree(self, plan: Plan) -> Layout | None:
        """The layout of the file under construction where it is of this very plan; None where there
        is none. Raises `BratsError` naming what differs, unless it may be dropped."""
        begun = self._state.plan
        if not begun:
            return None
        differences = _differences(begun, plan)
        if differences:
            self._refuse_or_drop(differences)
            return None
        layout = Layout(**begun["layout"])
        if not self.partial.is_file() or self.partial.stat().st_size != layout.file_bytes:
            self._rewrite()
            return None
        return layout

    def begin(self, plan: Plan, layout: Layout) -> None:
        """Notes that rows of `plan` are being written from now on."""
        record = {"plan": _describe(plan), "layout": asdict(layout)}
        self._append(record)
        self._state.plan = {**record["plan"], "layout": record["layout"]}
        self.sync()

    def done(self, is_written: Callable[[int, int], bool]) -> dict[int, int]:
        """The checksum of each case whose rows are written, by its number. `is_written(number,
        checksum)` looks at the rows themselves, for marks that a crash may have outlived."""
        return {
            number: int(mark["checksum"], 16)
            for number, mark in self._state.done.items()
            if mark["boot"] == self._boot or is_written(number, int(mark["checksum"], 16))
        }

    @property
    def has_plan(self) -> bool:
        return bool(self._state.plan)

    def mark(self, number: int, checksum: int) -> None:
        """Notes that the rows of a case are written."""
        self._append({"done": number, "checksum": f"{checksum:016x}", "boot": self._boot})

    def sync(self) -> None:
        """Makes what is noted durable."""
        os.fsync(self._descriptor)

    def remove(self) -> None:
        """Ends the journal of a build that is finished, or that never began to write."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)  # which unlocks it
            self._descriptor = -1

    def _begin(self, head: dict[str, Any]) -> None:
        state = self._state
        if state.head and state.head != head:
            if state.plan:
                self._refuse_or_drop(_differing(state.head, head))
            self._state = state = JournalState()
        if not state.head:
            self._state = JournalState(head=head)
            self._rewrite()
        os.ftruncate(self._descriptor, self._state.num_bytes)  # cuts a torn end off

    def _refuse_or_drop(self, differences: list[str]) -> None:
        if not self._may_drop:
            shown = differences[:_NUM_NAMED]
            if len(differences) > len(shown):
                shown.append(f"and {len(differences) - len(shown)} more")
            lines = "\n".join(f"  {printable(line)}" for line in shown)
            raise BratsError(
                f"{printable(self.partial)}: begun by another build:\n{lines}\n"
                "Undo that to go on with it, or start anew with --overwrite."
            )
        self._rewrite()

    def _rewrite(self) -> None:
        """Starts over with the surveys alone."""
        self._state.plan, self._state.done = {}, {}
        surveys = [{"survey": name, **kept} for name, kept in self._state.surveys.items()]
        lines = [format_line({"build": self._state.head}), *map(format_line, surveys)]
        os.ftruncate(self._descriptor, 0)
        self._state.num_bytes = sum(map(len, lines))
        self._write(b"".join(lines))
        self.partial.unlink(missing_ok=True)
        sync_folder(self.path.parent)

    def _append(self, record: dict[str, Any]) -> None:
        self._write(format_line(record))

    def _write(self, content: bytes) -> None:
        try:
            written = os.write(self._descriptor, content)
        except OSError as error:
            raise BratsError(
                f"{printable(self.path)}: cannot be written ({error.strerror})."
            ) from error
        if written < len(content):
            raise BratsError(f"{printable(self.path)}: cannot be written (the disk is full).")


def sweep(out: Path) -> None:
    """Removes the journal of a build of `out` that was killed when nothing was left to do but
    that."""
    path = out.with_name(out.name + ".journal")
    if out.exists() and path.exists() and not partial_path(out).exists():
        with contextlib.suppress(BratsError):  # another build has just begun with it
            descriptor = _open_locked(path)
            path.unlink(missing_ok=True)
            os.close(descriptor)


def file_marks(case: Case) -> list[list[Any]]:
    """Size and time of change, in ns, of every file that the survey of a case reads."""
    scans = [*case.images.values(), *([case.mask] if case.mask else [])]
    marks = []
    for path in dict.fromkeys([*(scan.path for scan in scans), *case.unclaimed]):
        try:
            status = path.stat()
        except OSError:
            marks.append([str(path), 0, 0])
        else:
            marks.append([str(path), status.st_size, status.st_mtime_ns])
    return marks


def _open_locked(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise BratsError(f"{printable(path)}: cannot be written ({error.strerror}).") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise BratsError(
            f"{printable(path)}: another build of this file is running. Wait for it, or choose "
            "another --out."
        ) from None
    except OSError:
        pass  # some network file systems lock nothing; then nothing can be told
    return descriptor


def _content_of(path: Path) -> bytes:
    try:
        with open_regular_file(path) as file:
            return file.read()
    except OSError as error:
        raise BratsError(f"{printable(path)}: cannot be read ({error.strerror}).") from error


def _head(preparation: Preparation) -> dict[str, Any]:
    """What decides a survey."""
    described = asdict(preparation)
    described["modalities"] = list(described["modalities"])
    return {**described, "format_version": FORMAT_VERSION, "writer": __version__}


def _describe(plan: Plan) -> dict[str, Any]:
    """What decides every byte of the file, in a form that differences can be named from."""
    return {
        "fingerprint": plan.fingerprint,
        "options": json.loads(json.dumps(describe_options(plan.options))),
        "shard": str(plan.shard),
        "data_dirs": [str(folder) for folder in plan.data_dirs],
        "cases": {
            case.id: {
                "scans": [
                    [source.name, source.num_bytes, source.checksum]
                    for source in case.survey.sources
                ],
                "split": case.split,
                "fold": case.fold,
                "label scheme": case.scheme.name,
            }
            for case in plan.cases
        },
    }


def _differences(begun: Mapping[str, Any], plan: Plan) -> list[str]:
    """How `plan` differs from the one that was begun; empty for the same."""
    now = _describe(plan)
    if begun["fingerprint"] == now["fingerprint"] and begun["data_dirs"] == now["data_dirs"]:
        return []
    found = _differing(begun["options"], now["options"])
    found += _differing(begun, now, ("shard", "data_dirs"))
    then, today = begun["cases"], now["cases"]
    found += [f"{name}: among the scans then, not now" for name in then if name not in today]
    found += [f"{name}: among the scans now, not then" for name in today if name not in then]
    for name in (name for name in then if name in today):
        old, new = then[name], today[name]
        changed = [b[0] for a, b in zip(old["scans"], new["scans"], strict=False) if a != b]
        found += [f"{name}: {source} has changed" for source in changed]
        found += [
            f"{name}: {line}" for line in _differing(old, new, ("split", "fold", "label scheme"))
        ]
    return found or ["patients, grades, ages, survival or channels"]


def _differing(
    then: Mapping[str, Any], now: Mapping[str, Any], names: tuple[str, ...] = ()
) -> list[str]:
    return [
        f"{name}: {then.get(name)} then, {now.get(name)} now"
        for name in names or sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]


def _content(survey: Survey) -> dict[str, Any]:
    """A survey as plain JSON values; repr of a float64 gives it back exactly."""
    return {
        "shape": survey.shape,
        "affine": survey.affine.tolist(),
        "codes": survey.codes,
        "sources": [asdict(source) for source in survey.sources],
        "normalizations": [asdict(one) for one in survey.normalizations],
        "brain_pixels": survey.brain_pixels.tolist(),
        "label_values": survey.label_values,
        "label_pixels": survey.label_pixels.tolist(),
    }


def _survey(case: Case, content: Mapping[str, Any]) -> Survey:
    depth = len(content["brain_pixels"])
    return Survey(
        case=case,
        shape=tuple(content["shape"]),
        affine=np.array(content["affine"], np.float64),
        codes=content["codes"],
        sources=tuple(Source(**source) for source in content["sources"]),
        normalizations=tuple(Normalization(**one) for one in content["normalizations"]),
        brain_pixels=np.array(content["brain_pixels"], np.int32),
        label_values=tuple(content["label_values"]),
        label_pixels=np.array(content["label_pixels"], np.int32).reshape(-1, depth),
    )


def _boot_id() -> str:
    """Names the run of the system that this process belongs to; where that cannot be told, a name
    that nothing else has, so that every mark is looked after."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return os.urandom(16).hex()
