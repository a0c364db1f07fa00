"""The viewer: one page with a scan, its masks and NiiVue.

NiiVue (niivue.com) draws the planes. Its published file is kept gzipped in the package's `pages`
folder with its licence, so neither a network nor another package is needed.
"""

from __future__ import annotations

import base64
import gzip
import secrets
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from os import environ
from pathlib import Path
from tempfile import TemporaryDirectory
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
from brats_train.report.display import MODALITY_NAMES, choose_window, without_tumour
from brats_train.report.html import assemble, asset, embedded_json

__all__ = ["make_view", "redirect_file", "serve", "start_server"]

LOOPBACK = "127.0.0.1"
_SAMPLES = 1 << 20  # voxels that percentiles are computed from


@dataclass(frozen=True, kw_only=True, eq=False)
class _Volume:
    """A canonical volume.

    Attributes:
        values: (Z, Y, X).
        header: Header of its file.
    """

    values: np.ndarray
    header: Header


def make_view(case_dir: Path, mask: Path | None = None) -> bytes:
    """Makes the page of a case.

    Args:
        case_dir: Holds the one case, in any naming that `brats build-cache` understands.
        mask: A further mask to show over it, on the same grid or another.

    Returns:
        An HTML page, one file.

    Raises:
        DataFaults: A file cannot be read.
        BratsError: The folder does not hold exactly one case.
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
        "volumes": _encoded(volumes, [volume.values for _, _, volume in overlays]),
        "masks": [
            {
                "name": printable(name),
                "kind": kind,
                "labels": [int(value) for value in np.unique(volume.values) if value],
                "nifti": _base64(volume.values, volume.header),
            }
            for name, kind, volume in overlays
        ],
        "start": _start_position(volumes, [volume for _, _, volume in overlays]),
    }
    return assemble(
        "view.html",
        style=asset("view.css").decode(),
        scripts=[gzip.decompress(asset("niivue.umd.js.gz")).decode(), asset("view.js").decode()],
        texts={"title": printable(case.id)},
        data=embedded_json("data", content),
    )


def serve(page: bytes, port: int, echo: Callable[[str], object]) -> None:
    """Serves a page to this machine until Ctrl-C, and opens a browser where there is a screen.

    Args:
        page: HTML.
        port: 0 for a free one.
        echo: Prints a line.

    Raises:
        BratsError: The port is taken.
    """
    server, address = start_server(page, port)
    echo(f"{address}\nCtrl-C ends it.")
    with ExitStack() as stack:
        stack.callback(server.server_close)
        if environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"):
            webbrowser.open(stack.enter_context(redirect_file(address)).as_uri())
        try:
            server.serve_forever()
        except KeyboardInterrupt:  # the way to end it, so no failure
            echo("")


@contextmanager
def redirect_file(address: str) -> Iterator[Path]:
    """Makes a page that leads to `address` and that only this user can read.

    A browser is told its page on its command line, which every user of the machine can read; the
    secret in `address` must not stand there.
    """
    with TemporaryDirectory(prefix="brats-view-") as folder:  # with permissions 0700
        path = Path(folder) / "open.html"
        path.write_text(
            '<!DOCTYPE html><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
            f'<meta http-equiv="refresh" content="0; url={address}"><a href="{address}">View</a>\n'
        )
        yield path


def start_server(page: bytes, port: int) -> tuple[ThreadingHTTPServer, str]:
    """Makes a server of one page on the loopback address, not running yet.

    The URL holds a random token and requests must have this machine as their host, so neither other
    users of the machine nor pages of other sites can read the scan.

    Returns:
        The server, and the URL of the page.
    """
    token = secrets.token_urlsafe(16)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hosts = {f"{name}:{server.server_port}" for name in (LOOPBACK, "localhost")}
            if self.headers.get("Host") not in hosts or self.path != f"/{token}/":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(page)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:
            """Logs nothing."""

    try:
        server = ThreadingHTTPServer((LOOPBACK, port), Handler)
    except OSError as error:
        raise BratsError(f"port {port}: cannot be served at ({error.strerror}).") from error
    return server, f"http://{LOOPBACK}:{server.server_port}/{token}/"


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


def _encoded(volumes: dict[str, _Volume], masks: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """The scans for the page; FLAIR first, which shows the whole tumour best."""
    brain = brain_of([volume.values for volume in volumes.values()])
    tumour = next((mask for mask in masks if mask.shape == brain.shape), np.zeros_like(brain))
    beside = without_tumour(brain, tumour != 0)
    encoded = []
    for name in sorted(volumes, key=lambda one: one != "flair"):
        values, header = volumes[name].values, volumes[name].header
        low, high = choose_window(_sample(values[brain]), _sample(values[beside]))
        if low < 0:
            # In scans that were normalised before, the 0 outside the brain is not a dark value.
            values = np.where(brain, values, np.asarray(np.floor(low), values.dtype))
        encoded.append(
            {
                "name": MODALITY_NAMES[name],
                "low": low,
                "high": high,
                "nifti": _base64(values, header),
            }
        )
    return encoded


def _sample(values: np.ndarray) -> np.ndarray:
    return values[:: max(1, values.size // _SAMPLES)]


def _base64(values: np.ndarray, header: Header) -> str:
    return base64.b64encode(encode_volume(values, header)).decode()


def _start_position(volumes: dict[str, _Volume], masks: Sequence[_Volume]) -> list[float]:
    """The first position of the crosshair, RAS mm.

    The centre of the last mask that is not empty, in its largest slice; else of the scan.
    """
    volume = next(iter(volumes.values()))
    voxel = [size // 2 for size in volume.values.shape]
    for mask in masks:
        if mask.values.any():
            z = int(np.count_nonzero(mask.values, axis=(1, 2)).argmax())
            rows, columns = np.nonzero(mask.values[z])
            voxel, volume = [z, int(np.median(rows)), int(np.median(columns))], mask
    orientation, shape = volume.header.orientation, volume.values.shape
    index = np.ones(4)
    for axis, flip, at, size in zip(
        orientation.permutation, orientation.flips, voxel, shape, strict=True
    ):
        index[axis] = size - 1 - at if flip else at
    return [float(value) for value in (volume.header.affine @ index)[:3]]
