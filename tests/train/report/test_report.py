"""The page of a run: what it shows is what was scored, and names stay names."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from brats_cache.api import build_cache
from brats_cache.format.reader import Cache, open_cache
from brats_cache.format.truth import true_labels
from brats_cache.imaging.labels import region_table
from brats_train.evaluation.results import CaseRow, Results, ScoredModel, read_results
from brats_train.models.postprocessing import Postprocessing
from brats_train.models.sources import fingerprint_of_file, load_models
from brats_train.report import page as page_module
from brats_train.report import scored_cases
from brats_train.report.build import _draw_results
from brats_train.report.case_entry import CaseEntry, run_length
from brats_train.report.gallery import Predicted, files_predictor, select_slices
from brats_train.report.html import embedded_json
from brats_train.report.palette import FALSE_ALARM, PREDICTION, TRUTH
from brats_train.report.panels import draw_predictions
from brats_train.report.scored_cases import choose_panels, predict_cases
from brats_train.report.scored_models import _find_checkpoint, _networks
from brats_train.training.metrics_file import METRIC_COLUMNS
from brats_train.training.run_dir import RunDir
from tests.browser import Page, check_looks, open_browser
from tests.commands import run_brats
from tests.train.runs import call, fold_run, index_of, make_run

EVIL = "<img src=x onerror=alert(1)>"
PHONE = 390
KINDS = ("png", "svg")


@pytest.fixture(scope="module")
def evil_cache(phantom_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Three validation cases, one with a name that would be markup, and a test case."""
    folder = tmp_path_factory.mktemp("evil")
    training = phantom_dir / "BraTS2020_TrainingData"
    lines = ["case,split"]
    for number, name in enumerate(("Case_1", EVIL, "Case_10", "Case_2"), start=1):
        old = f"BraTS20_Training_{number:03}"
        source = next(path for path in training.rglob(old) if path.is_dir())
        for file in source.iterdir():
            target = folder / "scans" / name / file.name.replace(old, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
        lines.append(f"{name},{'train' if number == 1 else 'val'}")
    shutil.copytree(phantom_dir / "BraTS2020_ValidationData", folder / "scans" / "unmasked")
    test_case = next((folder / "scans" / "unmasked").rglob("*_flair.nii*")).name
    lines.append(f"{test_case.split('_flair')[0]},test")
    (folder / "split.csv").write_text("\n".join(lines) + "\n")
    path = folder / "cache.h5"
    run_brats(
        *("build-cache", folder / "scans", "--out", path, "--size", 64, "--workers", 1),
        *("--split-file", folder / "split.csv", "--label-scheme", "brats2017"),
    )
    return open_cache(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, evil_cache: Cache) -> Path:
    """A run with all regions that was scored and reported."""
    path = make_run(tmp_path_factory.mktemp("runs") / "r", evil_cache, target="regions")
    add_metrics(path)
    call("eval", "--run", path, "--save-masks", "--device", "cpu")
    call("report", "--run", path, "--device", "cpu")
    return path


def add_metrics(path: Path) -> None:
    for epoch in (1, 2, 3):
        row = dict.fromkeys(METRIC_COLUMNS, 0.5) | {"epoch": epoch, "val_iou_loss": 1 / epoch}
        RunDir(path).append_metrics(row)


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with open_browser() as page:
        yield page


@pytest.fixture
def page(browser: Page, run: Path) -> Page:
    browser.resize(1200, 900)
    browser.open((run / "report.html").as_uri())
    return browser


def page_data(path: Path) -> dict:
    """What the page's scripts read."""
    text = (path / "report.html").read_text()
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert block is not None
    return json.loads(block[1])


def decoded(text: str) -> np.ndarray:
    """The run-length code, read as its description says."""
    values, content = [], iter(base64.b64decode(text))
    for value in content:
        count = shift = 0
        for byte in content:
            count |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        values.append(np.full(count, value, np.uint8))
    return np.concatenate(values)


@given(arrays.arrays(np.uint8, st.integers(1, 700), elements=st.sampled_from([0, 0, 1, 255])))
def test_run_lengths_give_the_values_back(values: np.ndarray) -> None:
    assert (decoded(base64.b64encode(run_length(values)).decode()) == values).all()


@given(
    st.text() | st.sampled_from(["</script><script>alert(1)</script>", "<!--", "&lt;", "\u2028"])
)
def test_no_text_leaves_its_data_block(text: str) -> None:
    block = embedded_json("data", {text: [text]})

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append(tag)

    found: list[str] = []
    Reader().feed(block)
    assert found == ["script"]
    inner = block.removeprefix('<script type="application/json" id="data">')
    assert json.loads(inner.removesuffix("</script>")) == {text: [text]}


def test_every_figure_is_there_as_png_and_svg(run: Path) -> None:
    names = {"curves", "panels", "tests", "scores", "sizes", "reliability"}
    found = {path.name for path in (run / "figures").iterdir()}
    assert found == {f"{name}.{kind}" for name in names for kind in KINDS}
    text = (run / "report.html").read_text()
    assert text.count("<figure") == len(names)
    assert not re.search(r'(src|srcset)="(?!data:)', text)
    links = re.findall(r'href="(?!data:)(.*?)"', text)
    assert {link for link in links if link[0] != "#"} == {
        *(f"figures/{name}.png" for name in names),
        *("figures/panels.svg", "figures/tests.svg"),
    }
    assert all((run / link).is_file() for link in links if link[0] != "#")


def test_tables_and_charts_can_be_saved_from_the_page_alone(run: Path) -> None:
    saved = re.findall(
        r'download="(.*?)" href="data:.*?;base64,(.*?)"', (run / "report.html").read_text()
    )
    files = {name: base64.b64decode(content) for name, content in saved}
    assert set(files) == {
        *("metrics.csv", "cases.csv"),
        *(f"{name}.svg" for name in ("curves", "scores", "sizes", "reliability")),
    }
    assert files["metrics.csv"] == (run / "metrics.csv").read_bytes()
    assert files["cases.csv"] == (run / "eval" / "val" / "cases.csv").read_bytes()
    assert files["scores.svg"] == (run / "figures" / "scores.svg").read_bytes()


def test_beside_the_paper_stands_what_the_run_reached(page: Page) -> None:
    rows = page.run(
        "[...document.querySelectorAll('table.plain tbody tr')]"
        ".map((row) => [...row.children].map((cell) => cell.textContent))"
    )
    shown = {name: (paper, own) for name, paper, own in rows}
    assert shown["IoU, validation slices"] == ("about 0.65", "0.500")
    assert shown["epochs"] == ("200", "3")
    assert shown["training slices a second"] == ("4.2", "0.5")
    headings = page.run("[...document.querySelectorAll('h3')].map((h) => h.textContent).join()")
    assert all(f"figure {number}" in headings for number in (12, 13))
    assert "figures 14 to 17" in headings


def test_the_masks_shown_are_those_scored_and_the_truth(run: Path, evil_cache: Cache) -> None:
    for entry in page_data(run)["cases"]:
        index = index_of(evil_cache, entry["case"])
        shape = (len(entry["z_indices"]), entry["height"], entry["width"])
        bits = decoded(entry["masks"]).reshape(shape)
        labels = true_labels(evil_cache, index)[entry["z_indices"]]
        mask = run / "eval" / "val" / "masks" / f"{entry['case']}.nii.gz"
        predicted = np.asarray(nib.load(mask).dataobj)  # the phantom's z is the third axis, upwards
        for number, (region, values) in enumerate(
            {"wt": (1, 2, 4), "tc": (1, 4), "et": (4,)}.items()
        ):
            true = ((bits >> number) & 1).sum(axis=(1, 2))
            assert true.tolist() == region_table(region)[labels].sum(axis=(1, 2)).tolist()
            found = ((bits >> (4 + number)) & 1).sum(axis=(1, 2))
            scored = np.isin(predicted, values).sum(axis=(0, 1))[entry["z_indices"]]
            assert found.tolist() == scored.tolist()
        rows = evil_cache.row_slice(index)
        assert entry["z_indices"] == evil_cache.slices["z"][rows].tolist()  # every slice
        areas = region_table("wt")[true_labels(evil_cache, index)].sum(axis=(1, 2))
        assert areas[entry["z_indices"][entry["first"]]] == areas.max()


def test_the_page_opens_alone_and_without_errors(page: Page, run: Path) -> None:
    assert page.problems == []
    assert page.requests == [(run / "report.html").as_uri()]
    names = page.run("[...document.querySelectorAll('button.case')].map((b) => b.textContent)")
    assert sorted(names) == sorted([EVIL, "Case_10", "Case_2"])
    assert page.run("document.querySelectorAll('[onerror], img:not([src^=\"data:\"])').length") == 0
    assert page.run("[...document.images].every((i) => i.complete && i.naturalWidth > 100)")
    assert page.run("document.querySelectorAll('script:not([type])').length") == 3
    assert page.run("byId('summary').textContent").startswith(
        "Mean Dice on 3 validation cases: whole tumour (WT) 0."
    )


def test_expected_dice_is_told_where_cases_are_enough() -> None:
    def told(low: float | None) -> str:
        scores = {"value": -0.6, "low": low, "high": 0.8}
        expected = {"rank_correlation": scores, "mean_absolute_error": {**scores, "value": 0.25}}
        rows = [CaseRow(case="a", region="tc", scores={})]
        summary = {"regions": {"tc": {"expected_dice": expected}}}
        return page_module._scores_section(
            Results(folder=Path("run"), summary=summary, rows=rows, models=[]), []
        )

    assert "tumour core (TC): rank correlation −0.600 (95 % interval −1.000 to 0.800)" in told(-1)
    assert "Expected" not in told(None)


def test_a_heading_sorts_the_table(page: Page, run: Path) -> None:
    results = read_results(run / "eval" / "val")
    assert results is not None
    dice = results.values("wt", "dice")
    cases = "[...document.querySelectorAll('button.case')].map((b) => b.textContent)"
    click = "document.querySelectorAll('.cards thead button')[%d].click()"
    state = "document.querySelectorAll('.cards thead th')[%d].getAttribute('aria-sort')"
    page.run(click % 0)
    assert page.run(cases) == [EVIL, "Case_2", "Case_10"]
    assert page.run(state % 0) == "ascending"
    page.run(click % 1)
    assert page.run(cases) == sorted(dice, key=lambda case: dice[case])
    assert (page.run(state % 0), page.run(state % 1)) == ("none", "ascending")
    page.run(click % 1)
    assert page.run(cases) == sorted(dice, key=lambda case: -dice[case])
    assert page.run(state % 1) == "descending"


def drawn_after(page: Page, *keys: str) -> str:
    """The canvas as it looks once the keys were pressed and it was drawn again."""
    before = page.run("canvas.dataset.drawn")
    for key in keys:
        page.press(key)
    page.wait(f"canvas.dataset.drawn !== {json.dumps(before)} && drawing == canvas.dataset.drawn")
    return page.run("canvas.toDataURL()")


def test_the_slices_turn_by_keyboard(page: Page, run: Path) -> None:
    entries = {entry["case"]: entry for entry in page_data(run)["cases"]}
    page.run("document.querySelector('button.case').focus()")
    first = drawn_after(page, "Enter")
    assert page.run("dialog.open")
    case = page.run("document.getElementById('browser-case').textContent")
    entry = entries[case]
    z = re.compile(r"z = (\d+) of (\d+)")

    def place() -> int:
        found = z.search(page.run("document.getElementById('place').textContent"))
        assert found is not None
        return int(found[1])

    assert place() == entry["z_indices"][entry["first"]]
    assert "Dice" in page.run("document.getElementById('browser-scores').textContent")
    drawn_after(page, "Home")
    assert place() == entry["z_indices"][0]
    drawn_after(page, "ArrowUp")
    assert place() == entry["z_indices"][1]
    drawn_after(page, "End")
    assert place() == entry["z_indices"][-1]
    drawn_after(page, *["ArrowDown"] * (len(entry["z_indices"]) - 1 - entry["first"]))
    assert place() == entry["z_indices"][entry["first"]]
    without_truth = drawn_after(page, "t")
    plain = drawn_after(page, "p")
    assert len({first, without_truth, plain}) == 3
    assert drawn_after(page, "t", "p") == first
    assert drawn_after(page, "m") != first
    assert "T1" in page.run("canvas.getAttribute('aria-label')")
    drawn_after(page, "m", "m", "m", "r")
    assert "tumour core" in page.run("canvas.getAttribute('aria-label')")
    drawn_after(page, "ArrowRight")
    assert page.run("document.getElementById('browser-case').textContent") != case
    page.press("Escape")
    page.wait("!dialog.open")
    assert page.problems == []


def test_the_wheel_and_the_slider_turn_the_slices(page: Page) -> None:
    page.run("document.querySelector('button.case').click()")
    page.wait("canvas.dataset.drawn !== undefined")
    before = page.run("document.getElementById('place').textContent")
    x, y = page.run("(({x, y}) => [x + 50, y + 50])(canvas.getBoundingClientRect())")
    page.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=100)
    page.wait(f"document.getElementById('place').textContent !== {json.dumps(before)}")
    page.run("document.getElementById('position').focus()")
    page.press("Home")
    page.wait("document.getElementById('place').textContent.includes('slice 1 of')")


def near(page: Page, color: str, box: Sequence[float] = (0, 0, 1, 1)) -> int:
    """How many of the canvas's pixels have a colour; the box is left, top, right, bottom of it."""
    wanted = [int(color[at : at + 2], 16) for at in (1, 3, 5)]
    return page.run(
        "(([left, top, right, bottom], wanted) => { const { width, height } = canvas;"
        "const [x, y] = [left * width, top * height].map(Math.round);"
        "const sizes = [right * width - x, bottom * height - y].map(Math.round);"
        "const { data } = canvas.getContext('2d').getImageData(x, y, ...sizes); let count = 0;"
        "for (let i = 0; i < data.length; i += 4)"
        "  count += wanted.every((value, k) => Math.abs(data[i + k] - value) < 12);"
        f"return count; }})({json.dumps(box)}, {wanted})"
    )


def test_on_the_slice_stand_its_marks_and_colours(page: Page) -> None:
    page.run("document.querySelector('button.case').focus()")
    drawn_after(page, "Enter")
    colors = (TRUTH, PREDICTION, FALSE_ALARM)  # an untrained model finds tumour everywhere
    assert all(near(page, color) > 50 for color in colors)
    drawn_after(page, "t", "p", "a", "a", "a")
    assert page.run("state.area") == "none"
    assert not any(near(page, color) for color in colors)
    for name, box in {
        "R": (0, 0.46, 0.05, 0.54),
        "L": (0.95, 0.46, 1, 0.54),
        "modality": (0, 0, 0.12, 0.06),
        "z": (0.85, 0, 1, 0.06),
        "scale bar": (0.85, 0.97, 1, 1),
    }.items():
        assert near(page, "#FFFFFF", box) > 20, name


def test_window_and_zoom_change_what_is_drawn(page: Page) -> None:
    page.run("document.querySelector('button.case').focus()")
    first = drawn_after(page, "Enter")
    drawn_after(page, "t", "p", "a", "a", "a")  # the scan alone

    def brightness() -> float:
        return page.run(
            "(() => { const { data } = canvas.getContext('2d').getImageData("
            "canvas.width * 0.3, canvas.height * 0.3, canvas.width * 0.4, canvas.height * 0.4);"
            "let sum = 0; for (let i = 0; i < data.length; i += 4) sum += data[i];"
            "return 4 * sum / data.length; })()"
        )

    start = brightness()
    drawn_after(page, *"....")  # a higher level
    assert brightness() < start - 5
    drawn_after(page, *",,,,,,,,")
    assert brightness() > start + 5
    box = page.run("(({x, y, width}) => [x, y, width])(canvas.getBoundingClientRect())")
    about = {"button": "right", "buttons": 2, "clickCount": 1}
    middle = {"x": box[0] + box[2] / 2, "y": box[1] + box[2] / 2}
    page.call("Input.dispatchMouseEvent", type="mousePressed", **middle, **about)
    before = page.run("windowOf()")
    middle["x"] += 40
    page.call("Input.dispatchMouseEvent", type="mouseMoved", **middle, **about)
    page.call("Input.dispatchMouseEvent", type="mouseReleased", **middle, **about)
    low, high = page.run("windowOf()")
    assert high - low == pytest.approx(before[1] - before[0] + 40)  # wider
    drawn_after(page, "0")
    far = near(page, "#000000")
    drawn_after(page, "+", "+", "+")
    assert near(page, "#000000") < far / 2  # the head fills the canvas
    assert near(page, "#FFFFFF", (0, 0.46, 0.05, 0.54)) > 20, "R stays where it is"
    drawn_after(page, "0", "t", "p", "a")
    assert page.run("canvas.toDataURL()") == first


def test_every_control_has_a_name(page: Page) -> None:
    page.run("document.querySelector('button.case').click()")
    page.wait("canvas.dataset.drawn !== undefined")
    page.call("Accessibility.enable")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    wanted = {"button", "checkbox", "radio", "slider", "image", "dialog", "canvas"}
    seen = set()
    for node in nodes:
        role = node.get("role", {}).get("value")
        if node.get("ignored") or role not in wanted:
            continue
        seen.add(role)
        assert node["name"]["value"].strip(), node
    assert {"button", "checkbox", "radio", "slider", "image", "dialog"} <= seen


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_it_without_scrolling_sideways(browser: Page, run: Path, dark: bool) -> None:
    check_looks(browser, (run / "report.html").as_uri(), PHONE, dark=dark)
    shapes = "[...document.images].map((one) => one.naturalHeight / one.naturalWidth)"
    curves, panels, tests, scores, *_ = browser.run(shapes)
    assert min(curves, panels, scores) > 1, "one below the other"
    assert tests > 0.5
    letters = browser.run(
        "(async () => { const image = document.images[0]; await image.decode();"
        "const text = atob(image.currentSrc.split(',')[1]);"
        "const [, size] = /font-size: (\\d+)px/.exec(text);"
        "const [, wide] = /viewBox=.0 0 ([\\d.]+)/.exec(text);"
        "return size * image.clientWidth / wide; })()"
    )
    assert letters > 9, "pixels"
    label = browser.run(
        "getComputedStyle(document.querySelectorAll('.cards td')[1], '::before').content"
    )
    assert label == '"WT Dice"'
    browser.run("document.querySelector('button.case').click()")
    browser.wait("canvas.dataset.drawn !== undefined")
    left, right = browser.run("(({left, right}) => [left, right])(canvas.getBoundingClientRect())")
    assert 0 <= left < right <= PHONE
    assert right - left > PHONE / 2


def test_a_report_made_again_is_the_same_and_replaces_only_its_own(
    run: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "r"
    shutil.copytree(run, copy)
    (copy / "figures" / "mine.png").write_bytes(b"mine")
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    call("report", "--run", copy, "--device", "cpu")
    after = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    page = copy / "report.html"
    title = str(run.parent.name).encode()
    assert before.pop(page).replace(title, tmp_path.name.encode()) == after.pop(page)
    assert before == after


def test_a_run_without_scores_shows_its_training(
    tmp_path: Path, evil_cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the formats that are asked for, and those of an earlier report."""
    path = make_run(tmp_path / "r", evil_cache)
    call("report", "--run", path, code=1)
    assert "nothing to show" in capsys.readouterr().err
    assert not (path / "report.html").exists()
    add_metrics(path)
    call("report", "--run", path)
    assert "brats eval" in capsys.readouterr().err
    assert {file.name for file in (path / "figures").iterdir()} == {"curves.png", "curves.svg"}
    (path / "figures" / "curves.png").write_bytes(b"old")
    call("report", "--run", path, "--format", "pdf", "--dpi", 60)
    suffixes = {file.suffix: file.read_bytes()[:4] for file in (path / "figures").iterdir()}
    assert suffixes == {".png": b"\x89PNG", ".svg": b"<?xm", ".pdf": b"%PDF"}
    assert "not been scored yet" in (path / "report.html").read_text()


def test_the_checkpoint_that_was_scored_is_known_by_its_content(tmp_path: Path) -> None:
    """The run was renamed, and another lies at its old place now."""
    moved, old = tmp_path / "moved", tmp_path / "old"
    for folder, content in ((moved, b"scored"), (old, b"another")):
        folder.mkdir()
        (folder / "best.pt").write_bytes(content)
    held = {"path": str(old / "best.pt"), "fingerprint": fingerprint_of_file(moved / "best.pt")}
    assert _find_checkpoint(held, moved) == moved / "best.pt"
    unknown = {**held, "fingerprint": "0" * 16}  # reading it will tell that it has changed
    assert _find_checkpoint(unknown, moved) == old / "best.pt"


def test_the_networks_of_a_fold_are_taken_from_an_exported_folder(
    tmp_path: Path, cache: Cache
) -> None:
    """Its one file stands for all folds, each of which was scored by itself."""
    run, out = fold_run(tmp_path / "r", cache), tmp_path / "hub"
    call("export", "--run", run, "--format", "hub", "--out", out)
    marks = [model.fingerprint for model in load_models(out)]
    path = str(out / "model.safetensors")
    for fold, mark in enumerate(marks):
        checkpoints = [{"path": path, "fingerprint": mark}]
        scored = ScoredModel(fold=fold, postprocessing=Postprocessing(), checkpoints=checkpoints)
        assert [model.fold for model in _networks(scored, run)] == [fold]
    both = [{"path": path, "fingerprint": mark} for mark in marks]
    whole = ScoredModel(fold=None, postprocessing=Postprocessing(), checkpoints=both)
    assert [model.fingerprint for model in _networks(whole, run)] == marks


def test_cases_without_slices_are_passed_over(run: Path, evil_cache: Cache) -> None:
    """As of a cache of tumour slices, where a case has none and scores 1 with an empty mask."""
    results = read_results(run / "eval" / "val")
    assert results is not None
    results = replace(results, summary={**results.summary, "predictions": "masks"})
    best = next(case for case, text in choose_panels(results).items() if text.startswith("best"))
    cases = evil_cache.cases.copy()
    cases["rows"][index_of(evil_cache, best)] = 0
    cache = replace(evil_cache, cases=cases)
    scored, _ = predict_cases(
        results,
        [cache],
        files_predictor(run / "eval" / "val" / "masks", results.regions),
        None,
        lambda done, total: None,
    )
    assert {entry.case for entry in scored.entries} == {*results.cases} - {best}
    drawn = _draw_results(results, scored, [])
    assert "panels" in drawn
    assert best not in scored.panels


def test_scores_of_other_weights_or_another_cache_are_refused(
    run: Path, tmp_path: Path, cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "r"
    shutil.copytree(run, copy)
    call("report", "--run", copy, "--cache", cache.path, code=1)
    assert "not the cache" in capsys.readouterr().err
    summary_path = copy / "eval" / "val" / "summary.json"
    summary = json.loads(summary_path.read_text())
    summary["checkpoints"][0]["fingerprint"] = "0" * 16
    summary_path.write_text(json.dumps(summary))
    call("report", "--run", copy, code=1)
    assert "has changed" in capsys.readouterr().err
    summary_path.write_text("{}")
    call("report", "--run", copy, code=1)
    assert "Score the run again" in capsys.readouterr().err


@pytest.mark.usefixtures("plain_figures")
def test_masks_made_elsewhere_can_be_shown(run: Path, tmp_path: Path) -> None:
    """Without a model there are no probabilities and no test cases."""
    copy = tmp_path / "r"
    shutil.copytree(run, copy)
    shutil.copytree(run / "eval" / "val" / "masks", tmp_path / "masks")
    call("eval", "--run", copy, "--predictions", tmp_path / "masks")
    (copy / "best.pt").unlink()
    call("report", "--run", copy)
    figures = {file.stem for file in (copy / "figures").iterdir()}
    assert figures == {"panels", "scores", "sizes", "curves"}
    scored, shown = page_data(run)["cases"], page_data(copy)["cases"]
    assert [one["masks"] for one in scored] == [one["masks"] for one in shown]


def test_right_and_left_come_from_the_affine(tmp_path: Path) -> None:
    """A bright mark in the patient's left half, in files whose axes run in three directions."""
    shape = (20, 24, 6)  # right to left, front to back, bottom to top
    scan = np.zeros(shape, np.int16)
    scan[2:18, 2:22, 1:5] = np.arange(16)[:, None, None] + 100
    scan[14:17, 10:13, 3] = 900
    mask = (scan == 900).astype(np.uint8)
    affine = np.diag([-3.0, -2.0, 5.0, 1.0])
    for number, axes in enumerate(("LPS", "RAS", "SAR")):
        turned = nib.orientations.ornt_transform(
            nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(axes)
        )
        folder = tmp_path / "scans" / f"case{number}"
        folder.mkdir(parents=True)
        for kind, values in (("flair", scan), ("seg", mask)):
            image = nib.Nifti1Image(values, affine).as_reoriented(turned)
            nib.save(image, folder / f"case{number}_{kind}.nii")
    cache = build_cache(
        tmp_path / "scans", tmp_path / "c.h5", modalities=["flair"], size=24, workers=1
    )
    for index in range(3):
        labels = true_labels(cache, index)
        masks = region_table("wt")[labels][None]
        slices = select_slices(
            cache, index, Predicted(masks=masks, tables={}), labels, ("wt",), limit=1
        )
        assert slices.pixel_mm == (2, 3)
        figure = draw_predictions([slices])
        (image,) = figure.axes[0].images
        middle = image.get_array().shape[1] / 2
        letters = {text.get_text(): text.get_position()[0] for text in figure.axes[0].texts}
        assert letters["R"] < 0.5 < letters["L"]
        columns = np.flatnonzero(slices.prediction[0, 0].any(axis=0))
        assert columns.min() > middle, "the patient's left is at the letter L"
        grey = slices.images[0, 0].astype(int)
        assert np.flatnonzero(grey.max(axis=0) == grey.max()).min() > middle


def test_what_fits_no_more_shows_the_slices_through_the_tumour(
    run: Path, evil_cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst case comes first; the others are told apart by `is_whole`."""
    results = read_results(run / "eval" / "val")
    assert results is not None
    predict = files_predictor(run / "eval" / "val" / "masks", results.regions)
    results.summary["predictions"] = "masks"  # no test cases then
    monkeypatch.setattr(scored_cases, "MAX_SLICES", 4)

    def entries(num_bytes: int) -> dict[str, CaseEntry]:
        monkeypatch.setattr(scored_cases, "SLICES_BYTES", num_bytes)
        scored, _ = predict_cases(results, [evil_cache], predict, None, lambda done, total: None)
        return {entry.case: entry for entry in scored.entries}

    whole = entries(10**9)
    assert all(entry.browser["is_whole"] for entry in whole.values())
    assert tuple(whole) == results.cases
    for entry in entries(0).values():
        assert not entry.browser["is_whole"]
        assert len(entry.browser["z_indices"]) == 4
    dice = results.values("wt", "dice")
    worst = min(dice, key=lambda case: dice[case])
    room = whole[worst].num_bytes - 4 * scored_cases.BYTES_OF_A_SLICE + 1
    some = entries(len(whole) * 4 * scored_cases.BYTES_OF_A_SLICE + max(room, 1))
    assert some[worst].browser["is_whole"]


def test_fifty_five_real_cases_stay_under_20_mb(tmp_path: Path, real_data: Path) -> None:
    """Four modalities, 16 slices, a prediction that errs all around."""
    path = tmp_path / "real.h5"
    run_brats("build-cache", real_data / "brats2023", "--out", path, "--slices", "tumor")
    cache = open_cache(path)
    labels = true_labels(cache, 0)
    masks = np.array([np.roll(region_table(r)[labels], 4, axis=2) for r in ("wt", "tc", "et")])
    predicted = Predicted(masks=masks, tables={})
    slices = select_slices(cache, 0, predicted, labels, ("wt", "tc", "et"), 16)
    assert slices.images.shape[:2] == (16, 4)
    entry = CaseEntry.of(slices, 0.001)
    assert entry.num_bytes < 16 * scored_cases.BYTES_OF_A_SLICE
    assert 55 * 16 * scored_cases.BYTES_OF_A_SLICE < scored_cases.SLICES_BYTES
    figures_mb = 3
    assert scored_cases.SLICES_BYTES / 1e6 + figures_mb < 20
