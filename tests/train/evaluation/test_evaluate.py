"""Scores against what can be read off the files: scans, masks, and the cache's own pixels."""

from __future__ import annotations

import csv
import json
import math
import shutil
from concurrent.futures.process import BrokenProcessPool
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from brats_cache.common.errors import BratsError
from brats_cache.common.files import write_atomically
from brats_cache.format.reader import Cache
from brats_cache.imaging.labels import SCHEMES, region_table
from brats_train.evaluation import case_scores as scoring
from brats_train.evaluation import scoring_pool
from brats_train.evaluation.bootstrap import MIN_PATIENTS
from brats_train.evaluation.case_masks import CaseProbabilities, MaskRules
from brats_train.evaluation.evaluate import EvaluationJob, evaluate, evaluate_files
from brats_train.evaluation.metrics import RegionScores
from brats_train.evaluation.summary import DEFINITIONS, summarise, to_json
from brats_train.inference.case_models import CaseModels
from brats_train.inference.case_prediction import predict_cached_case
from brats_train.inference.ensemble import load_ensemble
from brats_train.models import checkpoint
from brats_train.models.postprocessing import Postprocessing
from brats_train.runtime.distributed import World
from tests.commands import run_brats
from tests.train.runs import call, find, ids, index_of, make_run

REGIONS = ("wt", "tc", "et")
SCHEME_LABELS = {"wt": (1, 2, 4), "tc": (1, 4), "et": (4,)}
WORLD = World(rank=0, size=1, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache: Cache) -> Path:
    """A run scored with --save-masks."""
    path = make_run(tmp_path_factory.mktemp("run") / "r", cache, target="regions")
    call("eval", "--run", path, "--split", "val", "--save-masks", "--device", "cpu")
    return path


def summary_of(run: Path, split: str = "val") -> dict:
    return json.loads((run / "eval" / split / "summary.json").read_text())


def rows_of(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    with open(folder / "cases.csv", newline="") as file:
        return {(row["case"], row["region"]): row for row in csv.DictReader(file)}


def truth_file(phantom_dir: Path, case: str) -> Path:
    return find(phantom_dir, f"{case}_seg.nii")


def test_every_case_and_region_has_a_row_and_nothing_else_does(run: Path, cache: Cache) -> None:
    text = (run / "eval" / "val" / "cases.csv").read_text()
    assert text.startswith("case,region,dice,iou,sensitivity,specificity,precision,hd95,")
    keys = list(rows_of(run / "eval" / "val"))
    assert keys == [(case, region) for case in ids(cache, "val") for region in REGIONS]


def test_scores_are_those_of_the_saved_masks_against_the_scans(
    run: Path, cache: Cache, phantom_dir: Path
) -> None:
    rows = rows_of(run / "eval" / "val")
    for case in ids(cache, "val"):
        truth_image = nib.load(truth_file(phantom_dir, case))
        mask_image = nib.load(run / "eval" / "val" / "masks" / f"{case}.nii.gz")
        assert np.allclose(mask_image.affine, truth_image.affine)
        truth, mask = np.asarray(truth_image.dataobj), np.asarray(mask_image.dataobj)
        for region, values in SCHEME_LABELS.items():
            true, predicted = np.isin(truth, values), np.isin(mask, values)
            assert int(rows[case, region]["predicted_voxels"]) == predicted.sum()
            assert int(rows[case, region]["overlap_voxels"]) == (true & predicted).sum()
            assert int(rows[case, region]["true_voxels"]) == true.sum()


def test_the_mean_slice_iou_is_the_loops(cache: Cache, run: Path) -> None:
    """Pixels on the cache's grid, probability 1/2, mean over slices and then over regions."""
    ensemble = load_ensemble([run / "best.pt"], WORLD.device)
    ious: dict[str, list[float]] = {region: [] for region in REGIONS}
    for case in ids(cache, "val"):
        record = cache.cases[index_of(cache, case)]
        rows = slice(record["first_row"], record["first_row"] + record["rows"])
        predicted = (
            ensemble.probabilities(np.asarray(cache.images[rows]), cache.slices["z"][rows]) >= 0.5
        ).numpy()
        for channel, region in enumerate(REGIONS):
            truth = region_table(region)[np.asarray(cache.masks[rows])[:, 0]]
            for one, other in zip(predicted[:, channel], truth, strict=True):
                union = (one | other).sum()
                ious[region].append((one & other).sum() / union if union else 1.0)
    summary = summary_of(run)
    for region in REGIONS:
        assert summary["regions"][region]["slice_iou"] == math.fsum(ious[region]) / len(
            ious[region]
        )
    assert summary["slice_iou"] == pytest.approx(np.mean([np.mean(x) for x in ious.values()]))
    assert summary["num_slices"] == len(ious["wt"])


def test_the_summary_says_what_its_figures_are(run: Path, cache: Cache) -> None:
    summary = summary_of(run)
    assert {field.name for field in fields(RegionScores)} - set(DEFINITIONS) == {
        *("true_voxels", "predicted_voxels", "overlap_voxels"),
        *("true_lesions", "missed_lesions", "false_lesions"),
    }
    assert summary["definitions"] == dict(DEFINITIONS)
    assert summary["caches"][0]["fingerprint"] == cache.fingerprint
    assert len(summary["checkpoints"][0]["fingerprint"]) == 16
    for region in REGIONS:
        scores = summary["regions"][region]
        values = [
            float(row["dice"])
            for key, row in rows_of(run / "eval" / "val").items()
            if key[1] == region
        ]
        assert scores["dice"]["mean"] == pytest.approx(np.mean(values))
        assert scores["dice"]["low"] is None  # of two patients
        sweep = scores["threshold_sweep"]
        at_half = sweep["mean_dice"][sweep["thresholds"].index(0.5)]
        if region == "et":  # no other region is nested in it
            assert at_half == pytest.approx(scores["dice"]["mean"], abs=1e-6)
        assert sweep["best_mean_dice"] == pytest.approx(max(sweep["mean_dice"]), abs=1e-6)
        assert 0 <= scores["calibration_error"] <= 1
        assert 0 <= scores["brier_score"] <= 1


def test_strict_json_reads_back_what_was_said() -> None:
    said = {"a": [1.5, 2, math.nan], "b": {"c": [], "d": ["x [1, 2]", None]}, "e": [[1], [2]]}
    read = json.loads(to_json(said))
    assert read == {**said, "a": [1.5, 2, None]}


def test_one_process_and_two_write_the_same_bytes(run: Path) -> None:
    folder = run / "eval" / "val"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(before) == 4
    shutil.rmtree(run / "eval_store")  # the model runs again
    words = ("eval", "--run-dir", run, "--split", "val", "--save-masks", "--device", "cpu")
    done = run_brats(*words, nproc=2)
    assert done.stdout.count("Mean over cases") == 1  # one rank speaks
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before


def test_processes_beside_the_model_change_nothing(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "r", cache)
    told = []
    for least in (1, 100):
        monkeypatch.setattr("brats_train.evaluation.scoring_pool.MIN_CASES_FOR_PROCESSES", least)
        call("eval", "--run", run, "--split", "train", "--device", "cpu")
        shutil.rmtree(run / "eval_store")
        told.append((run / "eval/train/summary.json").read_bytes())
    assert told[0] == told[1]


def test_a_scoring_process_that_dies_is_one_message() -> None:
    """Also where the next task was being handed over."""
    with pytest.raises(BratsError, match="died"), scoring_pool._process_pool(1):
        raise BrokenProcessPool


def test_masks_made_elsewhere_get_the_scores_of_the_model_that_made_them(
    tmp_path: Path, cache: Cache, cache_path: Path
) -> None:
    run = make_run(tmp_path / "r", cache)
    call("eval", "--run", run, "--save-masks", "--device", "cpu")
    folder = run / "eval" / "val"
    masks = tmp_path / "elsewhere"
    masks.mkdir()
    for path in (folder / "masks").iterdir():  # as another tool would have stored them
        turned = nib.as_closest_canonical(nib.load(path))
        nib.save(turned, masks / path.name.removesuffix(".gz"))
    call("eval", "--cache", cache_path, "--predictions", masks)
    ours, theirs = rows_of(folder), rows_of(masks / "eval" / "val")
    assert all(row.pop("expected_dice") for row in ours.values())  # of a model alone
    assert not any(row.pop("expected_dice") for row in theirs.values())
    assert {key: row for key, row in theirs.items() if key[1] == "wt"} == ours
    assert "checkpoints" not in json.loads((masks / "eval/val/summary.json").read_text())


def test_masks_of_one_label_are_warned_of_where_the_truth_has_several(
    phantom_dir: Path,
    cache: Cache,
    cache_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, convert in (("whole", lambda labels: labels > 0), ("all", lambda labels: labels)):
        folder = tmp_path / name
        folder.mkdir()
        for case in ids(cache, "val"):
            truth = nib.load(find(phantom_dir, f"{case}_seg.nii"))
            labels = convert(np.asarray(truth.dataobj)).astype(np.uint8)
            nib.save(nib.Nifti1Image(labels, truth.affine), folder / f"{case}.nii.gz")
        call("eval", "--cache", cache_path, "--predictions", folder)
        assert ("one label alone" in capsys.readouterr().err) == (name == "whole")


def test_masks_made_elsewhere_are_judged_where_the_cache_has_no_slices(
    tmp_path: Path, phantom_dir: Path
) -> None:
    """A cache of middle slices still tells all of the truth, from the scans."""
    middle, masks = tmp_path / "middle.h5", tmp_path / "masks"
    run_brats(
        *("build-cache", phantom_dir, "--out", middle, "--size", 64),
        *("--slices", "middle", "--workers", 1),
    )
    masks.mkdir()
    for path in phantom_dir.rglob("*_seg.nii"):
        shutil.copy(path, masks / path.name.replace("_seg", ""))
    call("eval", "--cache", middle, "--split", "val", "--predictions", masks)
    summary = json.loads((masks / "eval" / "val" / "summary.json").read_text())
    for region in REGIONS:
        assert summary["regions"][region]["dice"]["mean"] == 1.0
        assert summary["regions"][region]["hd95"]["mean"] == 0.0
    assert summary["num_uncached_true_voxels"] == 0


def test_all_missing_masks_are_named_together(
    tmp_path: Path, cache: Cache, cache_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("eval", "--cache", cache_path, "--predictions", tmp_path, "--split", "train", code=1)
    told = capsys.readouterr().err
    names = ids(cache, "train")
    assert f"{len(names)} times: no such mask" in told
    assert all(f"{tmp_path / case}.nii.gz" in told for case in names)
    assert not (tmp_path / "eval").exists()


@pytest.mark.parametrize("least", [1, 100])
def test_all_unusable_masks_are_named_together(
    tmp_path: Path,
    cache: Cache,
    cache_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    least: int,
) -> None:
    """By this process or by others."""
    monkeypatch.setattr("brats_train.evaluation.scoring_pool.MIN_CASES_FOR_PROCESSES", least)
    names = ids(cache, "val")
    for place, case in enumerate(names):
        shape = (64, 64, 24) if place else (64, 64, 23)
        image = nib.Nifti1Image(np.zeros(shape, np.uint8), np.diag([9, 9, 9, 1]))
        nib.save(image, tmp_path / f"{case}.nii.gz")
    call("eval", "--cache", cache_path, "--predictions", tmp_path, code=1)
    told = capsys.readouterr().err
    assert all(f"{case}.nii.gz" in told for case in names)


def test_masks_need_no_model_so_its_options_are_refused(cache_path: Path, tmp_path: Path) -> None:
    call("eval", "--cache", cache_path, "--predictions", tmp_path, "--tta", code=2)


def test_cases_without_masks_are_left_to_predict(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("eval", "--run", run, "--split", "test", code=1)
    assert "brats predict" in capsys.readouterr().err


def test_cases_with_masks_are_scored_beside_cases_without(run: Path, cache: Cache) -> None:
    """As where a split file holds out cases, and those that have no mask are test as well."""
    mixed = cache.cases.copy()
    mixed["split"][mixed["split"] == b"val"] = b"test"
    job = EvaluationJob(split="test", rows="all", fold=None, empty="official")
    masks = run / "eval" / "val" / "masks"
    mixture = replace(cache, cases=mixed)
    result = evaluate_files(job, REGIONS, masks, [mixture], WORLD, lambda *_: None)
    assert sorted(one.case for one in result.cases) == ids(cache, "val")
    assert sorted(result.unmasked) == ids(cache, "test")
    assert result.summary["num_cases"] == len(result.cases)


def test_masks_do_not_outlive_their_scores(tmp_path: Path, cache: Cache) -> None:
    run = make_run(tmp_path / "r", cache)
    call("eval", "--run", run, "--save-masks", "--device", "cpu")
    assert (run / "eval/val/masks").is_dir()
    call("eval", "--run", run, "--device", "cpu")
    assert sorted(path.name for path in (run / "eval/val").iterdir()) == [
        *("cases.csv", "summary.json")
    ]


def test_an_interrupted_evaluation_leaves_the_one_before(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "r", cache)
    call("eval", "--run", run, "--save-masks", "--device", "cpu")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("brats_train.inference.ensemble.Ensemble.predict", interrupt)
    call("eval", "--run", run, "--save-masks", "--tta", "--device", "cpu", code=130)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_labels_that_do_not_know_a_region_give_no_row_for_it(
    run: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(cache), "scheme", lambda self, case: SCHEMES["binary"])
    index = index_of(cache, ids(cache, "val")[0])
    ensemble = load_ensemble([run / "best.pt"], WORLD.device)
    prediction = predict_cached_case(cache, index, ensemble, tta=False)
    rules = MaskRules(regions=REGIONS, slice_rows="all", postprocessing=Postprocessing())
    probabilities = CaseProbabilities(
        volume=prediction.probabilities,
        slices=(prediction.network_output >= 0.5).numpy(),
        labels=prediction.labels,
        agreement=prediction.agreement,
    )
    task = scoring.ScoringTask(
        cache_path=cache.path, case=index, rules=rules, empty="official", prediction=probabilities
    )
    assert set(scoring.score_case(task).regions) == {"wt"}


def test_a_threshold_of_one_predicts_nothing_and_the_rule_for_that_is_the_users(
    tmp_path: Path, cache: Cache
) -> None:
    run = make_run(tmp_path / "r", cache)
    for rule in ("official", "nan"):
        call("eval", "--run", run, "--threshold", 1, "--empty", rule, "--device", "cpu")
        scores = summary_of(run)["regions"]["wt"]
        assert scores["num_empty_prediction"] == scores["num_cases"] == 2
        assert scores["dice"]["mean"] == 0.0
        assert scores["hd95"]["mean"] == 374.0  # a miss is one under either


def test_the_table_fits_eighty_columns_and_names_the_worst(
    run: Path, cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    call("eval", "--run", run, "--device", "cpu")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    for region in REGIONS:
        rows = rows_of(run / "eval" / "val")
        worst = min(ids(cache, "val"), key=lambda case: float(rows[case, region]["dice"]))
        assert any(line.startswith(f"lowest {region.upper()}") and worst in line for line in lines)


def test_json_is_all_that_is_printed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("eval", "--run", run, "--json", "--device", "cpu")
    printed = capsys.readouterr().out
    assert printed == (run / "eval/val/summary.json").read_text()


class Evil:
    """Unpickling this would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("fault", ["missing", "truncated", "hostile", "foreign", "two modalities"])
def test_a_checkpoint_that_is_none_gets_one_message(
    tmp_path: Path, cache: Cache, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "r", cache)
    best, marker = run / "best.pt", tmp_path / "marker"
    if fault == "missing":
        best.unlink()
    elif fault == "truncated":
        best.write_bytes(best.read_bytes()[:-1000])
    elif fault == "hostile":
        torch.save({"segmenter": Evil(marker), "format_version": 1}, best)
    elif fault == "foreign":
        torch.save([1, 2], best)
    else:
        content = checkpoint.load(best)
        content["segmenter"]["preparation"]["modalities"] = ("flair", "t1ce")
        write_atomically(best, partial(checkpoint.save, content))
    for words in (("eval", "--run", run), ("eval", "--run", run, "--checkpoint", best)):
        call(*words, "--device", "cpu", code=1)
        told = capsys.readouterr().err
        assert told.count("Error") == 1
        assert "Traceback" not in told
    assert not marker.exists()


def test_help_names_every_option_of_the_contract() -> None:
    from brats_train.cli.main import cli

    shown = CliRunner().invoke(cli, ["eval", "--help"]).output
    for option in (
        *("--split", "--run", "--cache", "--checkpoint", "--tta / --no-tta", "--threshold"),
        *("--empty", "--save-masks", "--predictions", "--json"),
    ):
        assert option in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_moved_cache_is_known_by_its_fingerprint(
    tmp_path: Path, cache: Cache, cache_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, moved = make_run(tmp_path / "r", cache), tmp_path / "elsewhere" / "c.h5"
    moved.parent.mkdir()
    shutil.copy(cache_path, moved)
    config = json.loads((run / "config.json").read_text())
    config["caches"][0]["path"] = str(tmp_path / "gone.h5")
    (run / "config.json").write_text(json.dumps(config))
    call("eval", "--run", run, "--device", "cpu", code=1)
    assert "--cache" in capsys.readouterr().err
    call("eval", "--run", run, "--cache", moved, "--device", "cpu")
    assert "Warning" not in capsys.readouterr().err


def test_another_cache_may_be_scored_and_is_said_to_be_another(
    tmp_path: Path, cache: Cache, cache_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "r", cache)
    config = json.loads((run / "config.json").read_text())
    config["caches"][0]["fingerprint"] = "0" * 32
    (run / "config.json").write_text(json.dumps(config))
    call("eval", "--run", run, "--cache", cache_path, "--device", "cpu")
    told = capsys.readouterr().err
    assert "Warning" in told
    assert cache.fingerprint in told
    call("eval", "--run", run, "--device", "cpu")  # a cache built anew under the old name
    assert "Warning" in capsys.readouterr().err


def test_the_summary_names_what_was_scored_from_any_folder(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "r", cache)
    shutil.copy(cache.path, tmp_path / "c.h5")
    monkeypatch.chdir(tmp_path)
    call("eval", "--run", "r", "--cache", "c.h5", "--save-masks", "--device", "cpu")
    summary = summary_of(Path("r"))
    assert summary["caches"][0]["path"] == str(tmp_path / "c.h5")
    assert summary["checkpoints"][0]["path"] == str(tmp_path / "r" / "best.pt")
    shutil.copytree("r/eval/val/masks", "masks")
    call("eval", "--cache", "c.h5", "--predictions", "masks")
    assert summary_of(Path("masks"))["predictions"] == str(tmp_path / "masks")


def test_a_file_of_one_model_does_not_stand_for_several_runs(tmp_path: Path, cache: Cache) -> None:
    run = make_run(tmp_path / "r", cache)
    words = ("--run", run, "--run", run, "--checkpoint", run / "best.pt")
    call("eval", *words, "--device", "cpu", code=2)


def test_an_id_that_leads_elsewhere_writes_no_mask(
    tmp_path: Path,
    cache: Cache,
    cache_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As a forged cache could have one."""
    cases = cache.cases.copy()
    cases["id"][index_of(cache, ids(cache, "val")[0])] = b"../../escaped"
    forged = replace(cache, cases=cases)
    monkeypatch.setattr("brats_cache.format.cache_set.open_cache", lambda path: forged)
    run = make_run(tmp_path / "deep" / "r", cache)
    call("eval", "--run", run, "--save-masks", "--device", "cpu", code=1)
    assert "../../escaped" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*escaped*"))
    call("eval", "--cache", cache_path, "--predictions", tmp_path, code=1)
    assert "../../escaped" in capsys.readouterr().err


def test_intervals_are_over_patients(tmp_path: Path, cache: Cache) -> None:
    """Two cases of one patient tell no more of other patients than one does."""
    run = make_run(tmp_path / "r", cache)
    ensemble = load_ensemble([run / "best.pt"], WORLD.device)
    job = EvaluationJob(split="train", rows="all", fold=None, empty="official")
    one = cache.cases.copy()
    one["patient"] = b"the same"
    num_patients = len(set(cache.cases["patient"][cache.cases["split"] == b"train"]))
    assert num_patients >= MIN_PATIENTS
    for cases, has_interval in ((cache.cases, True), (one, False)):
        models = CaseModels(by_fold={None: ensemble})
        told = evaluate(job, [replace(cache, cases=cases)], models, WORLD, lambda done, total: None)
        scored = [replace(case, patient="the same") for case in told.cases]
        summary = summarise(
            told.cases if has_interval else scored,
            ("wt",),
            split="train",
            slice_rows="all",
            empty="nan",
            facts={},
        )
        assert math.isnan(summary["regions"]["wt"]["dice"]["low"]) is not has_interval
        assert summary["num_patients"] == (num_patients if has_interval else 1)


def test_what_is_scored_is_what_predict_writes(
    tmp_path: Path, cache: Cache, phantom_dir: Path
) -> None:
    """Outside the brain, too, where both write background."""
    run = make_run(tmp_path / "r", cache, target="regions")
    call("eval", "--run", run, "--save-masks", "--device", "cpu")
    for case in ids(cache, "val"):
        folder = truth_file(phantom_dir, case).parent
        call("predict", folder, "--run", run, "--out", tmp_path, "--device", "cpu")
        written = np.asarray(nib.load(tmp_path / f"{case}.nii.gz").dataobj)
        scored = np.asarray(nib.load(run / "eval" / "val" / "masks" / f"{case}.nii.gz").dataobj)
        assert np.array_equal(written, scored)
        scans = [np.asarray(nib.load(path).dataobj) for path in folder.glob("*.nii")]
        assert not scored[np.all([scan == 0 for scan in scans], axis=0)].any()


def test_a_modality_is_left_out_into_a_folder_of_its_own(
    tmp_path: Path, cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    refusing = make_run(tmp_path / "refusing", cache)
    call("eval", "--run", refusing, "--device", "cpu", "--without", "flair", code=1)
    assert "without flair" in capsys.readouterr().err
    run = make_run(tmp_path / "run", cache, accepts_missing=True)
    call("eval", "--run", run, "--device", "cpu")
    before = (run / "eval/val/cases.csv").read_text()
    call("eval", "--run", run, "--device", "cpu", "--without", "flair", "--without", "t1")
    assert (run / "eval/val/cases.csv").read_text() == before
    folder = run / "eval" / "val-without-t1-flair"
    assert json.loads((folder / "summary.json").read_text())["without"] == ["t1", "flair"]
    assert (folder / "cases.csv").read_text() != before
