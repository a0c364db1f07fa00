"""A scan with its masks in the browser: one page, NiiVue and the volumes inside it.

NiiVue (niivue.com) draws the planes; its own published file lies gzipped in the package's `pages`
folder beside its licence, so that neither a network nor another package is needed.
"""

from __future__ import annotations

import base64
import gzip
import secrets
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from os import environ
from pathlib import Path
from typing import Any

import numpy as np

from brats_cache.common.errors import BratsError, DataFaults, printable
from brats_cache.discovery.cases import Case, Scan, find_cases
from brats_cache.imaging.nifti import read_contents
from brats_cache.imaging.nifti import read_labels as labels_of
from brats_cache.imaging.nifti import read_volume as volume_of
from brats_cache.imaging.nifti_header import Header, read_header
from brats_cache.imaging.nifti_writer import encode_volume
from brats_cache.imaging.preprocess import brain_of
from brats_train.report.display import PERCENTILES
from brats_train.report.html import assemble, asset, embedded_json

__all__ = ["make_view", "serve", "start_server"]

LOOPBACK = "127.0.0.1"
NAMES = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1ce", "t2": "T2"}
_SAMPLES = 1 << 20  # voxels that percentiles are taken of


@dataclass(frozen=True, kw_only=True, eq=False)
class _Volume:
    """A canonical (Z, Y, X) array and the header of the file it came from."""

    values: np.ndarray
    header: Header


def make_view(case_dir: Path, mask: Path | None = None) -> bytes:
    """The page of the one case in `case_dir`, with its own mask where it has one, and with `mask`.

    Raises `DataFaults` for files that cannot be read, and `BratsError` where there is not exactly
    one case.
    """
    case = _find_case(case_dir)
    volumes = {name: _read(scan) for name, scan in case.images.items()}
    overlays = []
    if case.mask is not None:
        overlays.append(("mask of the case", "truth", _read_mask(case.mask)))
    if mask is not None:
        overlays.append((mask.name, "prediction", _read_mask(Scan(path=mask))))
    content = {
        "case": case.id,
        "volumes": _encoded(volumes),
        "masks": [
            {
                "name": printable(name),
                "kind": kind,
                "labels": [int(value) for value in np.unique(volume.values) if value],
                "nifti": _base64(volume.values, volume.header),
            }
            for name, kind, volume in overlays
        ],
        "start": _middle(volumes, [volume for _, _, volume in overlays]),
    }
    return assemble(
        "view.html",
        style=asset("view.css").decode(),
        scripts=[gzip.decompress(asset("niivue.umd.js.gz")).decode(), asset("view.js").decode()],
        texts={"title": printable(case.id)},
        data=embedded_json("data", content),
    )


def serve(page: bytes, port: int, say: Callable[[str], object]) -> None:
    """Serves `page` to this machine until Ctrl-C, and opens a browser where there is a screen.
    Raises `BratsError` where the port is taken."""
    server, address = start_server(page, port)
    say(f"{address}\nCtrl-C ends it.")
    if environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:  # the way to end it, so no failure
        say("")
    finally:
        server.server_close()


def start_server(page: bytes, port: int) -> tuple[ThreadingHTTPServer, str]:
    """A server of `page` on the loopback address, not running yet, and the page's address.

    The address holds a word that cannot be guessed and requests must name this machine, so that
    neither other users of the machine nor pages of other sites can read the scan.
    """
    word = secrets.token_urlsafe(16)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hosts = {f"{name}:{server.server_port}" for name in (LOOPBACK, "localhost")}
            if self.headers.get("Host") not in hosts or self.path != f"/{word}/":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(page)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing of each request."""

    try:
        server = ThreadingHTTPServer((LOOPBACK, port), Handler)
    except OSError as error:
        raise BratsError(f"port {port}: cannot be served at ({error.strerror}).") from error
    return server, f"http://{LOOPBACK}:{server.server_port}/{word}/"


def _find_case(folder: Path) -> Case:
    """The case in `folder` with all the modalities it has."""
    findings = find_cases([folder], None)
    if findings.faults:
        raise DataFaults(findings.faults)
    cases = findings.cases
    if not cases:
        raise BratsError(f"{folder}: holds no scan, only a mask.")
    if len(cases) != 1:
        names = ", ".join(case.id for case in cases[:3])
        raise BratsError(
            f"{folder}: holds {len(cases)} cases ({printable(names)}, ...); expected one. Name a "
            "case folder."
        )
    return cases[0]


def _read(scan: Scan) -> _Volume:
    header = read_header(scan.path)
    return _Volume(values=volume_of(read_contents(header), scan.channel), header=header)


def _read_mask(scan: Scan) -> _Volume:
    header = read_header(scan.path)
    return _Volume(values=labels_of(read_contents(header), scan.channel), header=header)


def _encoded(volumes: dict[str, _Volume]) -> list[dict[str, Any]]:
    """What the page needs of each scan: FLAIR first, which shows the whole tumour best."""
    brain = brain_of([volume.values for volume in volumes.values()])
    encoded = []
    for name in sorted(volumes, key=lambda one: one != "flair"):
        values, header = volumes[name].values, volumes[name].header
        inside = values[brain]
        sample = inside[:: max(1, inside.size // _SAMPLES)] if inside.size else np.zeros(1)
        low, high = (float(value) for value in np.percentile(sample, PERCENTILES))
        if low < 0:
            # Scans that were normalised before hold 0 outside the head, which is no dark value.
            values = np.where(brain, values, np.asarray(np.floor(low), values.dtype))
        encoded.append(
            {
                "name": NAMES[name],
                "low": low,
                "high": max(high, low + 1e-6),
                "nifti": _base64(values, header),
            }
        )
    return encoded


def _base64(values: np.ndarray, header: Header) -> str:
    return base64.b64encode(encode_volume(values, header)).decode()


def _middle(volumes: dict[str, _Volume], masks: Sequence[_Volume]) -> list[float]:
    """Where the crosshair stands at first, RAS mm: in the slice where the last mask that holds
    something is largest, in the middle of it; in the middle of the scan where none does."""
    volume = next(iter(volumes.values()))
    place = [size // 2 for size in volume.values.shape]
    for mask in masks:
        if mask.values.any():
            z = int(np.count_nonzero(mask.values, axis=(1, 2)).argmax())
            rows, columns = np.nonzero(mask.values[z])
            place, volume = [z, int(np.median(rows)), int(np.median(columns))], mask
    orientation, shape = volume.header.orientation, volume.values.shape
    index = np.ones(4)
    for axis, flip, at, size in zip(
        orientation.permutation, orientation.flips, place, shape, strict=True
    ):
        index[axis] = size - 1 - at if flip else at
    return [float(value) for value in (volume.header.affine @ index)[:3]]
