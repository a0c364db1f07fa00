"""The viewer: under the crosshair stands what the files hold, and nobody else sees it."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import re
import shutil
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import nibabel as nib
import numpy as np
import pytest

from brats_cache.imaging.nifti_header import read_header
from brats_train.report.html import asset
from brats_train.report.page_server import serve, start_server
from brats_train.report.palette import PREDICTION, TRUTH
from brats_train.report.view import _on_grid, make_view
from tests.browser import Page, contrast, open_browser
from tests.train.runs import call

EVIL = "<img src=x onerror=alert(1)>"
NAMES = {0: "nothing", 1: "necrosis, non-enhancing core", 2: "oedema", 4: "enhancing tumour"}
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


def opened(browser: Page, path: Path, width: int = 800) -> Page:
    browser.resize(width, 420)  # the brain is drawn pixel by pixel without a graphics card
    browser.open(path.as_uri())
    browser.wait(READY)
    return browser


def text_of(page: Page) -> str:
    return page.run("document.getElementById('place').textContent")


def values_at(page: Page) -> tuple[np.ndarray, float, list[str]]:
    """Where the crosshair stands, RAS mm, the scan's value there, and each mask with its tissue."""
    found = re.match(r"x (\S+), y (\S+), z (\S+) mm .*?: \S+ (\S+); (.*)", text_of(page))
    assert found is not None, text_of(page)
    place = np.array([float(part) for part in found.groups()[:3]])
    return place, float(found[4]), found[5].split("; ")


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
    place, _, tissues = values_at(page)
    assert tissues[0] != "truth nothing", "the crosshair starts in the tumour"
    for key in ("", *steps, "far away"):
        before = place
        if key == "far away":
            page.run("viewer.moveCrosshairInVox(0, -64, 0)")
        elif key:
            page.press(key)
        place, value, tissues = values_at(page)
        if key != "far away":
            assert (place - before).round(3).tolist() == list(steps.get(key, (0, 0, 0)))
        assert value == pytest.approx(voxel_of(flair, place), rel=1e-3)
        in_mask = "tumour" if voxel_of(mask, place) else "nothing"
        assert tissues == [f"truth {NAMES[voxel_of(own, place)]}", f"{mask.name} {in_mask}"]
    assert tissues[0] == "truth nothing"
    page.press("m")
    assert values_at(page)[1] == pytest.approx(
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
    before, *_ = values_at(page)
    shot = page.screenshot()
    x, y, width, height = page.run(
        "(({x, y, width, height}) => [x, y, width, height])(canvas.getBoundingClientRect())"
    )
    text = json.dumps(text_of(page))
    page.click(x + width * 0.12, y + height * 0.5)
    page.wait(f"document.getElementById('place').textContent !== {text}")
    after, *_ = values_at(page)
    assert (np.abs(after - before) > 0.5).any()
    assert page.screenshot() != shot


def lines_near(page: Page, color: str) -> list[list[float]]:
    """Of each tile, the places of pixels of a colour on the canvas of outlines: x from 0 to 1."""
    wanted = [int(color[at : at + 2], 16) for at in (1, 3, 5)]
    return page.run(
        "(() => { const pen = lines.getContext('2d');"
        "return viewer.screenSlices.filter((tile) => tile.axCorSag < 3).map((tile) => {"
        "const [left, top, wide, high] = tile.leftTopWidthHeight.map(Math.round);"
        "const { data } = pen.getImageData(left, top, wide, high); const found = [];"
        "for (let i = 0; i < data.length; i += 4)"
        f"  if (data[i + 3] > 200 && {wanted}.every((one, k) => Math.abs(data[i + k] - one) < 12))"
        "    found.push((i / 4 % wide) / wide);"
        "return found; }); })()"
    )


def colored(page: Page, *kinds: int) -> float:
    """The share of coloured pixels in the tiles of some kinds; 4 is the brain."""
    return page.run(
        "(() => { viewer.opts.crosshairWidth = 0; viewer.opts.isOrientCube = false;"
        "viewer.drawScene(); const gl = viewer.gl; let [count, all] = [0, 0];"
        "for (const tile of viewer.screenSlices) {"
        f" if (!{list(kinds)}.includes(tile.axCorSag)) continue;"
        " const [x, y, w, h] = tile.leftTopWidthHeight.map(Math.round);"
        " const data = new Uint8Array(4 * w * h);"
        " gl.readPixels(x, gl.canvas.height - y - h, w, h, gl.RGBA, gl.UNSIGNED_BYTE, data);"
        " for (let i = 0; i < data.length; i += 4) { all++; const one = data.subarray(i, i + 3);"
        "  count += Math.max(...one) - Math.min(...one) > 30; } }"
        "return count / all; })()"
    )


def test_masks_are_areas_and_outlines_with_names(
    browser: Page, case_dir: Path, mask: Path, tmp_path: Path
) -> None:
    own = next(case_dir.glob("*_seg*"))
    image = nib.load(own)
    moved = tmp_path / "moved.nii.gz"
    nib.save(nib.Nifti1Image(np.roll(np.asarray(image.dataobj), 4, 0), image.affine), moved)
    out = tmp_path / "view.html"
    out.write_bytes(make_view(case_dir, [moved, mask]))
    page = opened(browser, out)
    assert page.run("document.title") == EVIL
    assert page.run("document.querySelectorAll('img, [onerror]').length") == 0
    labels = page.run("[...document.querySelectorAll('#masks label')].map((l) => l.textContent)")
    assert labels == ["truth", moved.name, mask.name]

    def legend() -> set[str]:
        texts = "[...document.querySelectorAll('#legend > span')].map((e) => e.textContent.trim())"
        return set(page.run(texts))

    assert legend() == set(NAMES.values()) - {"nothing"}
    assert colored(page, 0, 1, 2) > 0.01
    assert colored(page, 4) > 0.005, "the tumour is seen through the brain"
    assert page.run(
        "viewer.customLayout.reduce((sum, one) => sum + one.position[2] * one.position[3], 0)"
    ) == pytest.approx(1, abs=0.2)
    assert all(lines_near(page, TRUTH)), "an outline in each plane"
    assert all(lines_near(page, PREDICTION))
    page.press("t")
    assert not any(lines_near(page, TRUTH))
    page.press("a")
    assert legend() == {"missed", "false alarm", "found"}
    assert colored(page, 0, 1, 2) > 0.01
    page.press("a")
    assert page.run("state.area") == "none"
    assert legend() == set()
    assert colored(page, 0, 1, 2) == 0, "outlines do not fill"
    assert all(lines_near(page, PREDICTION))
    page.press("n")
    assert page.run("data.masks[state.mask].name") == mask.name
    page.press("a")
    assert legend() == {"tumour"}
    planes = "viewer.screenSlices.map((tile) => tile.axCorSag).sort()"
    before = page.run("viewer.screenSlices.map((t) => t.leftTopWidthHeight[2]).join()")
    page.press("b")
    assert page.run(planes) == [0, 1, 2], "no brain in 3-D"
    assert page.run("canvas.getAttribute('aria-label').includes('three planes, ')")
    assert all(lines_near(page, PREDICTION))
    page.press("b")
    assert page.run(planes) == [0, 1, 2, 4]
    assert page.run("viewer.screenSlices.map((t) => t.leftTopWidthHeight[2]).join()") == before
    page.run("byId('opacity').value = 0; byId('opacity').dispatchEvent(new Event('input'))")
    assert colored(page, 0, 1, 2) == 0
    assert page.problems == []


@pytest.mark.parametrize("axes", ["LPS", "RAS"])
def test_the_left_of_the_patient_is_at_the_letter_l(
    browser: Page, tmp_path: Path, axes: str
) -> None:
    scan, label = np.ones((20, 20, 10), np.int16), np.zeros((20, 20, 10), np.uint8)
    label[14:18, 8:12, 3:7] = 1
    affine = np.diag([-2.0, -2.0, 4.0, 1.0])  # the first axis runs to the left
    turned = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(axes)
    )
    (tmp_path / "c").mkdir()
    for name, values in (("flair", scan), ("seg", label)):
        image = nib.Nifti1Image(values, affine).as_reoriented(turned)
        nib.save(image, tmp_path / "c" / f"c_{name}.nii.gz")
    out = tmp_path / "view.html"
    out.write_bytes(make_view(tmp_path / "c"))
    page = opened(browser, out)
    order = page.run("viewer.screenSlices.filter((t) => t.axCorSag < 3).map((t) => t.axCorSag)")
    by_axis = dict(zip(order, lines_near(page, TRUTH), strict=True))
    assert min(by_axis[0]) > 0.5
    assert min(by_axis[1]) > 0.5
    letters = page.run(
        "(() => { const seen = []; const pen = lines.getContext('2d');"
        "const write = pen.fillText.bind(pen);"
        "pen.fillText = (text, x, y) => { seen.push([text, x, y]); write(text, x, y); };"
        "drawLines(); return [seen, viewer.screenSlices.find((t) => t.axCorSag === 0)"
        ".leftTopWidthHeight]; })()"
    )
    seen, (left, top, wide, high) = letters
    axial = {
        text: ((x - left) / wide, (y - top) / high)
        for text, x, y in seen
        if left <= x <= left + wide and top <= y <= top + high
    }
    assert axial["R"][0] < 0.1 < 0.9 < axial["L"][0]
    assert axial["A"][1] < 0.1 < 0.9 < axial["P"][1]
    assert {"FLAIR"} < set(axial)
    assert any(text.endswith("cm") for text in axial)
    assert legend_of(page) == ["tumour"]


def legend_of(page: Page) -> list[str]:
    return page.run(
        "[...document.querySelectorAll('#legend > span')].map((e) => e.textContent.trim())"
    )


def test_labels_that_nothing_explains_are_said_to_be_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label = np.zeros((20, 20, 10), np.uint8)
    label[5:9], label[9:12] = 1, 3
    (tmp_path / "c").mkdir()
    for name, values in (("flair", np.ones((20, 20, 10), np.int16)), ("seg", label)):
        nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "c" / f"c_{name}.nii.gz")
    out = tmp_path / "view.html"
    call("view", tmp_path / "c", "--out", out)
    assert "--label-scheme" in capsys.readouterr().err
    assert '"label 1"' in out.read_text()
    out.unlink()
    call("view", tmp_path / "c", "--out", out, "--label-scheme", "brats2023")
    assert capsys.readouterr().err == ""
    assert '"enhancing tumour"' in out.read_text()


def test_a_mask_on_another_grid_lies_where_it_is(tmp_path: Path) -> None:
    """Half the resolution, another origin, axes turned."""
    fine, coarse = np.eye(4), np.diag([2.0, 2.0, 2.0, 1.0])
    coarse[:3, 3] = (4.5, 0.5, 0.5)
    mask = np.zeros((8, 10, 5), np.uint8)
    mask[2:4, 3:6, 1:3] = 1
    paths = [tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz"]
    nib.save(nib.Nifti1Image(np.ones((20, 20, 10), np.int16), fine), paths[0])
    turned = nib.orientations.axcodes2ornt("SPR"), nib.orientations.io_orientation(coarse)
    image = nib.Nifti1Image(mask, coarse)
    nib.save(image.as_reoriented(nib.orientations.ornt_transform(turned[1], turned[0])), paths[1])
    scan, own = (read_header(path) for path in paths)
    labels = _on_grid(
        own.orientation.to_canonical(np.asarray(nib.load(paths[1]).dataobj)), own, scan
    )
    back = scan.orientation.to_source(labels)
    expected = np.zeros((20, 20, 10), np.uint8)
    expected[8:12, 6:12, 2:6] = 1
    assert (back == expected).all()


def test_a_phone_shows_it_without_scrolling_sideways(
    browser: Page, case_dir: Path, mask: Path, tmp_path: Path
) -> None:
    """Light or dark as the rest of the phone, the scan always on black."""
    out = tmp_path / "view.html"
    out.write_bytes(make_view(case_dir, [mask]))
    page = opened(browser, out, width=390)
    assert page.run("document.documentElement.scrollWidth") <= 390
    assert page.run("canvas.getBoundingClientRect().height") > 200
    backs = []
    for is_dark in (False, True):
        page.resize(390, 900, dark=is_dark)
        for selector in ("body", ".note", "legend"):
            text, back = page.run(
                f"[getComputedStyle(document.querySelector('{selector}')).color,"
                "getComputedStyle(document.body).backgroundColor]"
            )
            assert contrast(text, back) > (7 if selector == "body" else 4.5), (selector, is_dark)
        backs.append(back)
        scan = page.run("getComputedStyle(document.querySelector('main')).backgroundColor")
        assert scan == "rgb(0, 0, 0)"
    assert contrast(*backs) > 10, "light and dark"
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
    page.run("viewer.opts.isOrientCube = false")
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


def test_connections_that_break_off_are_not_told_of(capfd: pytest.CaptureFixture[str]) -> None:
    """A browser whose tab is closed while it loads is no fault of anybody."""
    server, address = start_server(b"x" * 10_000_000, 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    parts = urlsplit(address)
    assert parts.port is not None
    request = f"GET {parts.path} HTTP/1.0\r\nHost: {parts.netloc}"
    try:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", parts.port)) as client:
                # Closing sends a reset at once, where data would have to be waited for.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.sendall(f"{request}\r\n\r\n".encode())
                client.recv(1)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        deadline = time.monotonic() + 20  # sooner than an idle connection is closed
        while any("process_request" in one.name for one in threading.enumerate()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert capfd.readouterr().err == ""


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


def test_scans_that_no_cache_takes_can_be_looked_at(
    case_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A NaN, and a modality of another shape: this is when one wants to look."""
    copy = tmp_path / case_dir.name
    shutil.copytree(case_dir, copy)
    for role, change in (("t1", None), ("t2", (slice(None), slice(None), slice(3, None)))):
        (path,) = copy.glob(f"*_{role}.nii*")
        image = nib.load(path)
        values = np.asarray(image.dataobj).astype(np.float32)
        if change is None:
            values[5, 5, 5] = np.nan
        nib.save(nib.Nifti1Image(values if change is None else values[change], image.affine), path)
    call("view", copy, "--out", tmp_path / "view.html")
    assert "1 voxels are NaN or infinite, and shown as 0" in capsys.readouterr().err
    assert (tmp_path / "view.html").stat().st_size > 0


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
