"""The viewer: under the crosshair stands what the files hold, and nobody else sees it."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import nibabel as nib
import numpy as np
import pytest

from brats_train.report.html import asset
from brats_train.report.view import make_view, serve, start_server
from tests.browser import Page, open_browser
from tests.train.runs import call

EVIL = "<img src=x onerror=alert(1)>"
READY = "canvas.dataset.ready === 'yes'"


@pytest.fixture(scope="module")
def case_dir(phantom_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A case with a mask of its own and a name that would be markup."""
    folder = tmp_path_factory.mktemp("view") / EVIL
    folder.mkdir()
    source = next(p for p in phantom_dir.rglob("BraTS20_Training_002") if p.is_dir())
    for file in source.iterdir():
        shutil.copy(file, folder / file.name.replace(source.name, EVIL))
    return folder


@pytest.fixture(scope="module")
def mask(case_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole tumour of that case, stored with its axes in another order and direction."""
    image = nib.load(next(case_dir.glob("*_seg*")))
    whole = nib.Nifti1Image((np.asarray(image.dataobj) > 0).astype(np.uint8), image.affine)
    path = tmp_path_factory.mktemp("mask") / f"{EVIL}.nii.gz"
    turned = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(image.affine), nib.orientations.axcodes2ornt("SAR")
    )
    nib.save(whole.as_reoriented(turned), path)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with open_browser() as page:
        yield page


def opened(browser: Page, path: Path, width: int = 1000) -> Page:
    browser.resize(width, 700)
    browser.open(path.as_uri())
    browser.wait(READY)
    return browser


def text_of(page: Page) -> str:
    return page.run("document.getElementById('place').textContent")


def values_at(page: Page) -> tuple[np.ndarray, list[float]]:
    """Where the crosshair stands, RAS mm, and the number after each name: scan, then masks."""
    found = re.match(r"x (\S+), y (\S+), z (\S+) mm .*?: (.*)", text_of(page))
    assert found is not None, text_of(page)
    place = np.array([float(part) for part in found.groups()[:3]])
    return place, [float(part.rsplit(" ", 1)[1]) for part in found[4].split(", ")]


def voxel_of(path: Path, place: np.ndarray) -> float:
    image = nib.load(path)
    index = np.linalg.inv(image.affine) @ [*place, 1]
    return float(np.asarray(image.dataobj)[tuple(index[:3].round().astype(int))])


def test_under_the_crosshair_stands_what_the_files_hold_there(
    browser: Page, case_dir: Path, mask: Path, tmp_path: Path
) -> None:
    out = tmp_path / "view.html"
    call("view", case_dir, "--mask", mask, "--out", out)
    page = opened(browser, out)
    flair, own = next(case_dir.glob("*_flair*")), next(case_dir.glob("*_seg*"))
    steps = {"PageUp": (0, 0, 1), "ArrowLeft": (1, 0, 0), "ArrowUp": (0, 1, 0)}
    steps |= {"PageDown": (0, 0, -1), "ArrowRight": (-1, 0, 0), "ArrowDown": (0, -1, 0)}
    place, values = values_at(page)
    assert values[1] > 0, "the crosshair starts in the tumour"
    for key in ("", *steps, "far away"):
        before = place
        if key == "far away":
            page.run("viewer.moveCrosshairInVox(0, -64, 0)")
        elif key:
            page.press(key)
        place, values = values_at(page)
        if key != "far away":
            assert (place - before).round(3).tolist() == list(steps.get(key, (0, 0, 0)))
        expected = [voxel_of(path, place) for path in (flair, own, mask)]
        assert values == pytest.approx(expected, rel=1e-3)
    assert values[1:] == [0, 0]
    page.press("m")
    assert values_at(page)[1][0] == pytest.approx(
        voxel_of(next(case_dir.glob("*_t1.nii*")), place), rel=1e-3
    )
    assert "T1" in page.run("canvas.getAttribute('aria-label')")
    assert page.problems == []
    assert page.requests == [out.as_uri()]


def test_a_click_in_one_plane_moves_all_three(
    browser: Page, case_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "view.html"
    out.write_bytes(make_view(case_dir))
    page = opened(browser, out)
    before, _ = values_at(page)
    shot = page.screenshot()
    x, y, width, height = page.run(
        "(({x, y, width, height}) => [x, y, width, height])(canvas.getBoundingClientRect())"
    )
    text = json.dumps(text_of(page))
    page.click(x + width * 0.12, y + height * 0.5)
    page.wait(f"document.getElementById('place').textContent !== {text}")
    after, _ = values_at(page)
    assert (np.abs(after - before) > 0.5).any()
    assert page.screenshot() != shot


def test_masks_can_be_hidden_and_names_stay_names(
    browser: Page, case_dir: Path, mask: Path, tmp_path: Path
) -> None:
    out = tmp_path / "view.html"
    out.write_bytes(make_view(case_dir, mask))
    page = opened(browser, out)
    assert page.run("document.title") == EVIL
    labels = page.run("[...document.querySelectorAll('#masks label')].map((l) => l.textContent)")
    assert labels[0].startswith("mask of the case")
    assert labels[1].startswith(mask.name)
    assert page.run("document.querySelectorAll('img, [onerror]').length") == 0
    shots = [page.screenshot()]
    for key in "tp":
        page.press(key)
        shots.append(page.screenshot())
    assert len(set(shots)) == 3
    for key in "tp":
        page.press(key)
    assert page.problems == []


def test_a_phone_shows_it_without_scrolling_sideways(
    browser: Page, case_dir: Path, mask: Path, tmp_path: Path
) -> None:
    out = tmp_path / "view.html"
    out.write_bytes(make_view(case_dir, mask))
    page = opened(browser, out, width=390)
    assert page.run("document.documentElement.scrollWidth") <= 390
    assert page.run("canvas.getBoundingClientRect().height") > 200
    page.call("Accessibility.enable")
    for node in page.call("Accessibility.getFullAXTree")["nodes"]:
        role = node.get("role", {}).get("value")
        if not node.get("ignored") and role in {"checkbox", "radio", "slider", "image", "canvas"}:
            assert node["name"]["value"].strip(), node


def test_a_scan_normalised_before_is_black_outside_the_head(browser: Page, tmp_path: Path) -> None:
    """0 outside, -3 to 3 inside: what the public 2015 cases look like."""
    values = np.zeros((20, 20, 20), np.float32)
    values[5:15, 5:15, 5:15] = np.linspace(-3, 3, 1000).reshape(10, 10, 10) + 0.001
    (tmp_path / "c").mkdir()
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "c" / "c_flair.nii.gz")
    out = tmp_path / "view.html"
    out.write_bytes(make_view(tmp_path / "c"))
    page = opened(browser, out)
    assert page.run("document.getElementById('masks').hidden")
    page.run("viewer.opts.crosshairWidth = 0")
    page.run("viewer.opts.isOrientationTextVisible = false")
    dark = page.run(
        "(() => { viewer.drawScene(); const gl = viewer.gl; const { width, height } = gl.canvas;"
        "const pixels = new Uint8Array(4 * width * height);"
        "gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);"
        "let dark = 0; for (let i = 0; i < pixels.length; i += 4) dark += pixels[i] < 8;"
        "return dark / (width * height); })()"
    )
    assert dark > 0.7  # the head is a quarter of each plane, its darker part included in the rest
    assert dark < 0.99


def test_the_page_is_served_to_this_machine_alone() -> None:
    server, address = start_server(b"the page", 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        parts = urlsplit(address)
        assert server.server_address[0] == parts.hostname == "127.0.0.1"
        assert len(parts.path) > 16

        def get(path: str, host: str) -> tuple[int, bytes]:
            connection = http.client.HTTPConnection("127.0.0.1", parts.port)
            connection.request("GET", path, headers={"Host": host})
            answer = connection.getresponse()
            return answer.status, answer.read()

        assert get(parts.path, parts.netloc) == (200, b"the page")
        assert get("/", parts.netloc)[0] == 404
        assert get(parts.path, "example.org")[0] == 404
        assert b"the page" not in get(parts.path, f"example.org:{parts.port}")[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_secret_is_in_no_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser gets the name of a file that only this user can read."""
    opened: list[str] = []
    printed: list[str] = []

    def browse(url: str) -> None:
        path = Path(urlsplit(url).path)
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert printed[0].split("\n")[0] in path.read_text()
        opened.append(url)

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("DISPLAY", ":99")
    monkeypatch.setattr("webbrowser.open", browse)
    monkeypatch.setattr("http.server.ThreadingHTTPServer.serve_forever", interrupt)
    serve(b"<p>a scan</p>", 0, printed.append)
    assert printed[0].startswith("http://127.0.0.1:")
    (url,) = opened
    assert url.startswith("file:///")
    assert not Path(urlsplit(url).path).parent.exists()


def test_what_cannot_be_shown_is_said(
    phantom_dir: Path, case_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "view.html"
    for words, expected in (
        ([phantom_dir / "BraTS2020_TrainingData"], "expected one"),
        ([tmp_path / "nowhere"], "no such folder"),
        ([case_dir, "--mask", tmp_path / "nowhere.nii"], "nowhere.nii"),
        ([case_dir, "--mask", next(case_dir.glob("*_t1.nii*"))], "no label"),
    ):
        call("view", *words, "--out", out, code=1)
        assert expected in capsys.readouterr().err
    assert not out.exists()
    out.write_text("mine")
    call("view", case_dir, "--out", out, code=1)
    assert "exists already" in capsys.readouterr().err
    assert out.read_text() == "mine"


def test_the_viewer_within_is_the_published_one() -> None:
    """dist/niivue.umd.js of the npm package @niivue/niivue 0.69.0."""
    digest = hashlib.sha256(gzip.decompress(asset("niivue.umd.js.gz"))).hexdigest()
    assert digest == "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"
    assert b"BSD 2-Clause License" in asset("niivue.LICENSE")
