"""Training: that it learns, can be left and taken up, and says what went wrong."""

from __future__ import annotations

import csv
import json
import math
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brats_cache.common.errors import BratsError
from brats_train.models import checkpoint
from brats_train.runtime.distributed import World
from brats_train.training.checkpoint_writer import CheckpointWriter
from brats_train.training.metrics_file import METRIC_COLUMNS
from brats_train.training.recipe import Recipe, apply_settings
from brats_train.training.run_dir import RunDir
from brats_train.training.state import Finished, TrainJob
from brats_train.training.time_budget import TIMED_STEPS, WARM_UP_STEPS
from brats_train.training.train_step import TrainStep
from brats_train.training.trainer import Trainer, train
from tests.commands import SMALL_ENCODER
from tests.train.frozen import frozen_batchnorm

SMALL = (
    f"model.encoder={SMALL_ENCODER}",
    "encoder_weights=none",
    "rows=tumor",
    "epochs=2",
    "batch_size=24",
    "lr=1e-3",
    "amp=off",
)
ALONE = World(rank=0, size=1, device=torch.device("cpu"))


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs leave `runs/latest` in the working folder."""
    monkeypatch.chdir(tmp_path)


def job_of(cache_path: Path, *settings: str, **fields: Any) -> TrainJob:
    recipe = apply_settings(Recipe(), [*SMALL, *settings])
    return TrainJob(
        cache_paths=(cache_path,), recipe_name="test", recipe=recipe, deterministic=True, **fields
    )


def run_it(job: TrainJob, path: Path, *, resume: bool = False) -> Finished:
    return train(job, ALONE, RunDir(path), resume=resume, log=lambda text: None)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(path)["model"]


def assert_same_weights(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_a_run_learns_and_leaves_its_files(cache_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "runs" / "run"
    done = run_it(job_of(cache_path, "epochs=4"), path)
    assert not done.is_resumable
    assert done.reason == "all 4 epochs are done"
    with open(path / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == METRIC_COLUMNS
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert float(rows[-1]["train_loss"]) < 0.9 * float(rows[0]["train_loss"])
    losses = [float(row["val_iou_loss"]) for row in rows]
    assert done.best_epoch == 1 + int(np.argmin(losses))
    assert checkpoint.load(path / "best.pt")["epoch"] == done.best_epoch
    config = json.loads((path / "config.json").read_text())
    assert config["recipe"]["loss"]["name"] == "bce+iou"
    assert config["caches"][0]["path"] == str(cache_path)
    assert (tmp_path / "runs" / "latest").resolve() == path


def test_equal_runs_give_equal_weights(cache_path: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run_it(job_of(cache_path, "epochs=1"), tmp_path / name)
    assert_same_weights(tmp_path / "one" / "last.pt", tmp_path / "two" / "last.pt")


def interrupt_after(
    num_steps: int, job: TrainJob, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begins a run that is interrupted after so many steps."""
    polls = iter(range(1, 10**6))
    with monkeypatch.context() as patch:
        patch.setattr(
            "brats_train.runtime.signals.InterruptHandler.requested",
            property(lambda self: next(polls) == num_steps, lambda self, value: None),
            raising=False,
        )
        assert run_it(job, path).is_resumable


@pytest.mark.parametrize(
    ("batch_size", "num_steps"),
    [
        (24, 1),
        pytest.param(24, 4, marks=pytest.mark.slow),
        pytest.param(1000, 1, marks=pytest.mark.slow),
        (1000, 2),
    ],
    ids=["in an epoch", "later", "at the end of an epoch", "at the end of the run"],
)
def test_a_run_left_between_two_steps_goes_on_bit_for_bit(
    cache_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch_size: int,
    num_steps: int,
) -> None:
    settings = ("ema=0.9", "schedule=cosine", "clip_norm=1.0", f"batch_size={batch_size}")
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    run_it(job_of(cache_path, *settings), whole)
    interrupt_after(num_steps, job_of(cache_path, *settings), parted, monkeypatch)
    done = run_it(job_of(cache_path, *settings), parted, resume=True)
    assert done.reason == "all 2 epochs are done"
    assert_same_run(whole, parted)


def assert_equal(one: Any, other: Any) -> None:
    """Every tensor within is equal, bit for bit."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for ours, theirs in zip(one, other, strict=True):
            assert_equal(ours, theirs)
    else:
        assert one == other


def assert_same_run(whole: Path, parted: Path) -> None:
    """Weights, optimizer and metrics are equal, but for times."""
    for name in ("last.pt", "best.pt"):
        assert_same_weights(whole / name, parted / name)
    ours, theirs = (checkpoint.load(path / "last.pt") for path in (whole, parted))
    for state in ("averaged", "optimizer"):
        assert_equal(ours[state], theirs[state])
    columns = [
        name for name in METRIC_COLUMNS if name not in ("seconds", "slices_per_s", "wait_pct")
    ]
    one, other = (RunDir(path).read_metrics() for path in (whole, parted))
    assert [[row[name] for name in columns] for row in one] == [
        [row[name] for name in columns] for row in other
    ]


def test_resuming_with_other_settings_is_refused_by_name(cache_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    run_it(job_of(cache_path, "epochs=1"), path)
    with pytest.raises(BratsError, match=r"lr: 0.001 there, 0.5 now"):
        run_it(job_of(cache_path, "epochs=1", "lr=0.5"), path, resume=True)
    with pytest.raises(BratsError, match=r"augment.hflip: 0.5 there, 0.1 now"):
        run_it(job_of(cache_path, "epochs=1", "augment.hflip=0.1"), path, resume=True)


def test_the_last_weights_are_the_best_where_nothing_is_compared(
    cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    submit = CheckpointWriter.submit

    def count(self: CheckpointWriter, path: Path, content: Any) -> None:
        written.append(path.name)
        submit(self, path, content)

    monkeypatch.setattr(CheckpointWriter, "submit", count)
    done = run_it(job_of(cache_path, "epochs=3", "best_by=last"), tmp_path / "run")
    assert done.best_epoch == 3
    assert written == ["last.pt", "best.pt"]  # once, not every epoch
    assert checkpoint.load(tmp_path / "run" / "best.pt")["epoch"] == 3
    assert_same_weights(tmp_path / "run" / "best.pt", tmp_path / "run" / "last.pt")


def test_patience_ends_a_run(cache_path: Path, tmp_path: Path) -> None:
    job = job_of(cache_path, "epochs=50", "patience=2", "lr=0")
    done = run_it(job, tmp_path / "run")
    assert "patience" in done.reason
    assert len(RunDir(tmp_path / "run").read_metrics()) < 50


def test_a_time_limit_ends_judges_and_saves(cache_path: Path, tmp_path: Path) -> None:
    done = run_it(job_of(cache_path, "epochs=1000", max_minutes=1e-3), tmp_path / "run")
    assert "--max-minutes" in done.reason
    assert not math.isnan(RunDir(tmp_path / "run").read_metrics()[-1]["val_iou"])
    assert (tmp_path / "run" / "last.pt").is_file()
    assert (tmp_path / "run" / "best.pt").is_file()


def test_a_time_limit_ends_a_run_of_one_step_an_epoch(cache_path: Path, tmp_path: Path) -> None:
    job = job_of(cache_path, "epochs=1000", "batch_size=64", max_minutes=1e-3)
    done = run_it(job, tmp_path / "run")
    assert "--max-minutes" in done.reason
    assert len(RunDir(tmp_path / "run").read_metrics()) == 1


def test_micro_batches_follow_the_whole_batch(cache_path: Path, tmp_path: Path) -> None:
    """With batch norm at rest the gradients of pieces add up to those of the whole."""
    losses = []
    for micro_batch in ("auto", "7"):
        job = job_of(cache_path, "epochs=1", "batch_size=20", micro_batch=micro_batch)
        with frozen_batchnorm():
            run_it(job, tmp_path / micro_batch)
        losses.append(RunDir(tmp_path / micro_batch).read_metrics()[0]["val_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_loss_that_is_not_finite_names_step_and_slices(cache_path: Path, tmp_path: Path) -> None:
    with pytest.raises(BratsError, match=r"epoch 1, step \d+, rank 0") as caught:
        run_it(job_of(cache_path, "lr=1e38"), tmp_path / "run")
    assert "BraTS20_Training_" in str(caught.value)
    assert "z=" in str(caught.value)


def test_init_from_starts_with_another_runs_weights(cache_path: Path, tmp_path: Path) -> None:
    run_it(job_of(cache_path, "epochs=1"), tmp_path / "first")
    best = tmp_path / "first" / "best.pt"
    run_it(job_of(cache_path, "epochs=1", "lr=0", init_from=best), tmp_path / "second")
    parameters = dict(checkpoint.load_network(best)[1].named_parameters())
    after = weights(tmp_path / "second" / "last.pt")
    for name, value in parameters.items():
        assert torch.equal(value, after[name]), name
    with pytest.raises(BratsError, match="test_resnet"):
        run_it(
            job_of(cache_path, "model.encoder=resnet34", init_from=best),
            tmp_path / "third",
        )


def test_a_resumed_run_needs_its_first_weights_no_more(cache_path: Path, tmp_path: Path) -> None:
    run_it(job_of(cache_path, "epochs=1"), tmp_path / "first")
    best = tmp_path / "first" / "best.pt"
    job = job_of(cache_path, "epochs=1", init_from=best)
    run_it(job, tmp_path / "second")
    best.unlink()
    longer = job_of(cache_path, "epochs=2", init_from=best)
    assert run_it(longer, tmp_path / "second", resume=True).reason == "all 2 epochs are done"
    origin = checkpoint.load(tmp_path / "second" / "best.pt")["segmenter"]["weights_from"]
    assert origin == "first/best.pt (none (random initialisation))"


@pytest.mark.parametrize("micro_batch", [pytest.param("auto", marks=pytest.mark.slow), "7"])
def test_a_run_goes_on_with_other_processes(
    cache_path: Path, tmp_path: Path, micro_batch: str
) -> None:
    """As when a node of fewer GPUs is left, and older ones: samples are shared out anew, in the
    number format of the device."""
    path = tmp_path / "run"
    run_it(job_of(cache_path, "epochs=1", micro_batch=micro_batch), path)
    config = RunDir(path).read_config()
    held = str(config["micro_batch"])
    RunDir(path).write_config({**config, "world_size": 2, "amp": "fp16"})
    longer = job_of(cache_path, "epochs=2", "batch_size=24", micro_batch=held)
    assert run_it(longer, path, resume=True).reason == "all 2 epochs are done"
    config = RunDir(path).read_config()
    assert (config["world_size"], config["micro_batch"], config["amp"]) == (1, 24, "off")
    with pytest.raises(BratsError, match="micro_batch: 24 there, 5 now"):
        run_it(replace(longer, micro_batch="5"), path, resume=True)


def test_weights_of_caches_must_be_as_many_as_caches(cache_path: Path, tmp_path: Path) -> None:
    with pytest.raises(BratsError, match="2 x --cache-weight for 1 caches"):
        run_it(job_of(cache_path, "cache_weights=1,4"), tmp_path / "run")
    with pytest.raises(BratsError, match="Choose larger weights") as caught:
        run_it(job_of(cache_path, "cache_weights=1e-3"), tmp_path / "run")
    assert caught.value.is_shared  # every rank finds it, and one says so
    assert not (tmp_path / "run").exists()


def test_a_share_of_the_patients_trains_on_fewer_slices(cache_path: Path, tmp_path: Path) -> None:
    for share in (1, 0.5):
        run_it(job_of(cache_path, "epochs=1", f"patient_share={share}"), tmp_path / str(share))
    whole, half = (RunDir(tmp_path / name).read_config()["num_train_rows"] for name in ("1", "0.5"))
    assert 0 < half < whole
    all_looks, some_looks = (
        checkpoint.load(tmp_path / name / "best.pt")["segmenter"]["looks"] for name in ("1", "0.5")
    )
    assert 0 < len(some_looks) < len(all_looks)  # of the scans that it was trained on


def test_regions_need_masks_that_know_them(cache_path: Path, tmp_path: Path) -> None:
    run_it(job_of(cache_path, "epochs=1", "target=regions"), tmp_path / "run")
    segmenter, model, _ = checkpoint.load_network(tmp_path / "run" / "best.pt")
    assert segmenter.regions == ("wt", "tc", "et")
    assert model(torch.zeros(1, 4, 64, 64)).shape == (1, 3, 64, 64)


def test_resuming_a_finished_run_adds_nothing(cache_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    run_it(job_of(cache_path, "epochs=1"), path)
    before = weights(path / "last.pt")
    assert run_it(job_of(cache_path, "epochs=1"), path, resume=True).reason.startswith("all 1")
    assert len(RunDir(path).read_metrics()) == 1
    assert all(
        torch.equal(value, before[name]) for name, value in weights(path / "last.pt").items()
    )


def test_a_cache_that_changes_under_a_run_ends_it(cache_path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.h5"
    copy.write_bytes(cache_path.read_bytes())

    def say(text: str) -> None:
        if text.startswith("epoch   1"):
            copy.unlink()

    with pytest.raises(BratsError, match=r"copy\.h5: has changed or disappeared"):
        train(job_of(copy), ALONE, RunDir(tmp_path / "run"), resume=False, log=say)
    assert len(RunDir(tmp_path / "run").read_metrics()) == 1


def test_one_cache_given_twice_is_refused(cache_path: Path, tmp_path: Path) -> None:
    job = TrainJob(
        cache_paths=(cache_path, cache_path),
        recipe_name="test",
        recipe=apply_settings(Recipe(), SMALL),
    )
    with pytest.raises(BratsError, match="BraTS20_Training_001"):
        run_it(job, tmp_path / "run")


@pytest.mark.parametrize("where", ["parts.TrainStep", "train_step.TrainStep.__call__"])
def test_a_device_out_of_memory_is_one_message(
    cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """While it is filled, or in a step."""

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(f"brats_train.training.{where}", full)
    with pytest.raises(BratsError, match=r"Out of memory on cpu .*2\.00 GiB.*--micro-batch"):
        run_it(job_of(cache_path, "epochs=1"), tmp_path / "run")


def test_a_written_snapshot_is_freed(tmp_path: Path) -> None:
    """On a GPU it is memory that training may need."""
    content = {"weights": torch.zeros(3)}
    weights = weakref.ref(content["weights"])
    with CheckpointWriter() as saver:
        saver.submit(tmp_path / "some.pt", content)
        saver.wait()
        del content
        assert weights() is None


def test_a_full_disk_leaves_the_last_good_checkpoint(
    cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    run_it(job_of(cache_path, "epochs=1"), path)
    before = (path / "best.pt").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.save", full)
    with CheckpointWriter() as saver:
        saver.submit(path / "best.pt", {})
        with pytest.raises(BratsError, match=r"best\.pt.*No space left"):
            saver.wait()
    assert (path / "best.pt").read_bytes() == before
    assert not list(path.glob("*.partial"))


def test_a_moved_cache_is_known_by_what_it_holds(cache_path: Path, tmp_path: Path) -> None:
    moved, path = tmp_path / "elsewhere.h5", tmp_path / "run"
    run_it(job_of(cache_path, "epochs=1"), path)
    moved.write_bytes(cache_path.read_bytes())
    assert run_it(job_of(moved, "epochs=1"), path, resume=True).reason.startswith("all 1")
    (held,) = RunDir(path).read_config()["caches"]
    assert held["path"] == str(moved.resolve())


def test_more_epochs_extend_a_finished_run(cache_path: Path, tmp_path: Path) -> None:
    """The second schedule begins where the first one ended, and the run counts on."""
    path, lines = tmp_path / "run", []
    run_it(job_of(cache_path, "epochs=2", "schedule=cosine"), path)
    longer = job_of(cache_path, "epochs=4", "schedule=cosine")
    done = train(longer, ALONE, RunDir(path), resume=True, log=lines.append)
    assert done.reason == "all 4 epochs are done"
    rows = RunDir(path).read_metrics()
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert rows[1]["lr"] == rows[3]["lr"] == 0 < rows[2]["lr"]
    assert any("second learning-rate schedule" in line for line in lines)
    assert RunDir(path).read_config()["recipe"]["epochs"] == 4
    with pytest.raises(BratsError, match="epochs: 4 there, 3 now"):
        run_it(job_of(cache_path, "epochs=3", "schedule=cosine"), path, resume=True)


def test_a_time_limit_fits_the_schedule(
    cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of steps is fixed after the first ones, and the rate ends at zero."""
    monkeypatch.setattr("brats_train.training.schedule_fit.plan_epochs", lambda *_, **__: (5, 10))
    monkeypatch.setattr("brats_train.training.time_budget.MAX_TIMINGS", 1)
    job = job_of(cache_path, "epochs=1000", "schedule=cosine", "batch_size=8", max_minutes=30.0)
    done = run_it(job, tmp_path / "run")
    steps = WARM_UP_STEPS + TIMED_STEPS + 5
    assert done.reason == f"all {steps} steps that --max-minutes allows are done"
    assert RunDir(tmp_path / "run").read_metrics()[-1]["lr"] == 0
    position = checkpoint.load(tmp_path / "run" / "last.pt")["position"]
    assert position["schedule"] == [0, steps]
    assert position["schedule_is_final"]


@pytest.mark.parametrize("is_timed", [False, True])
def test_a_limit_of_time_can_be_lifted(
    cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_timed: bool
) -> None:
    """Before the schedule is fixed, the run is as if it had never had one; after it, extended."""
    monkeypatch.setattr("brats_train.training.schedule_fit.plan_epochs", lambda *_, **__: (1, 10))
    monkeypatch.setattr("brats_train.training.time_budget.MAX_TIMINGS", 1)
    settings = ("schedule=cosine", "batch_size=2")
    job = job_of(cache_path, *settings, max_minutes=30.0)
    if is_timed:
        assert "--max-minutes allows" in run_it(job, tmp_path / "run").reason
    else:
        interrupt_after(3, job, tmp_path / "run", monkeypatch)
    unlimited = replace(job, max_minutes=0.0)
    if is_timed:
        stopped = tmp_path / "stopped"  # before it was timed, in the middle of its first epoch
        assert "are over" in run_it(replace(job, max_minutes=1e-4), stopped).reason
        run_it(unlimited, stopped, resume=True)
        assert RunDir(stopped).read_metrics()[-1]["lr"] == 0
    assert run_it(unlimited, tmp_path / "run", resume=True).reason == "all 2 epochs are done"
    assert RunDir(tmp_path / "run").read_metrics()[-1]["lr"] == 0
    if not is_timed:
        run_it(unlimited, tmp_path / "whole")
        assert_same_weights(tmp_path / "whole" / "last.pt", tmp_path / "run" / "last.pt")


def test_a_run_that_ends_before_it_is_timed_is_as_one_without_a_limit(
    cache_path: Path, tmp_path: Path
) -> None:
    """The last of its steps are at full resolution, and post-processing is chosen."""
    job = job_of(cache_path, "epochs=1", "batch_size=12", "half_resolution=0.5", "choose=true")
    told: list[str] = []
    for name, max_minutes in (("free", 0.0), ("limited", 600.0)):
        one = replace(job, max_minutes=max_minutes)
        train(one, ALONE, RunDir(tmp_path / name), resume=False, log=told.append)
        assert told[-1].startswith("Chosen: ")
    assert_same_weights(tmp_path / "free" / "best.pt", tmp_path / "limited" / "best.pt")


def test_a_choice_that_would_take_too_long_is_left_out(
    cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brats_train.training.schedule_fit.plan_epochs", lambda *_, **__: (1, 1))
    monkeypatch.setattr("brats_train.training.schedule_fit.most_cases_within", lambda *_: 0)
    monkeypatch.setattr("brats_train.training.time_budget.MAX_TIMINGS", 1)
    job = job_of(cache_path, "epochs=1000", "batch_size=8", "choose=true", max_minutes=30.0)
    told: list[str] = []
    train(job, ALONE, RunDir(tmp_path / "run"), resume=False, log=told.append)
    assert "would take more than a fifth of --max-minutes 30: that of the recipe stays" in told[-1]
    assert checkpoint.load(tmp_path / "run" / "last.pt")["position"]["num_choice_cases"] == 0


def test_minutes_that_are_over_too_early_are_not_exceeded_by_a_choice(
    cache_path: Path, tmp_path: Path
) -> None:
    job = job_of(cache_path, "choose=true", max_minutes=1e-4)
    told: list[str] = []
    done = train(job, ALONE, RunDir(tmp_path / "run"), resume=False, log=told.append)
    assert done.reason == "--max-minutes 0.0001 are over"
    assert "post-processing is not chosen" in told[-1]
    assert (tmp_path / "run" / "best.pt").is_file()


def test_a_bad_state_never_replaces_a_good_one(
    cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the loss is looked at only now and then, it is looked at before anything is saved."""
    path = tmp_path / "run"
    monkeypatch.setattr("brats_train.training.trainer.STEPS_BETWEEN_CHECKS", 1000)
    monkeypatch.setattr(
        Trainer, "is_loss_read_each_step", property(lambda self: False, lambda *_: None), False
    )
    run_it(job_of(cache_path, "epochs=1", "batch_size=4"), path)
    good = checkpoint.load(path / "last.pt")
    take_step = TrainStep.__call__

    def spoiled(self: TrainStep, *arguments: Any, **named: Any) -> None:
        take_step(self, *arguments, **named)
        self.first_nonfinite.fill_(0)

    monkeypatch.setattr(TrainStep, "__call__", spoiled)
    longer = job_of(cache_path, "epochs=2", "batch_size=4", save_minutes=0.0)
    with pytest.raises(BratsError, match="not finite"):
        run_it(longer, path, resume=True)
    held = checkpoint.load(path / "last.pt")  # written once, before the first step of more epochs
    for state in ("model", "optimizer"):
        assert_equal(held[state], good[state])


def test_a_loss_over_the_batch_needs_the_whole_batch(cache_path: Path, tmp_path: Path) -> None:
    job = job_of(cache_path, "loss.overlap=batch", micro_batch="7")
    with pytest.raises(BratsError, match=r"loss\.overlap=batch"):
        run_it(job, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unknown_encoder_is_one_message(cache_path: Path, tmp_path: Path) -> None:
    with pytest.raises(BratsError, match="resnet999"):
        run_it(job_of(cache_path, "model.encoder=resnet999"), tmp_path / "run")


def test_a_time_limit_cuts_epochs_for_a_curve(
    cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut epochs are counted, validated and resumed like whole ones."""
    monkeypatch.setattr("brats_train.training.schedule_fit.plan_epochs", lambda *_, **__: (6, 2))
    monkeypatch.setattr("brats_train.training.time_budget.MAX_TIMINGS", 1)
    monkeypatch.setattr("brats_train.training.step_display.StepDisplay.is_due", lambda self: True)
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "brats_train.training.step_display.StepDisplay.show",
        lambda self, **values: shown.append(values),
    )
    job = job_of(cache_path, "epochs=1000", "schedule=cosine", "batch_size=2", max_minutes=30.0)
    run_it(job, tmp_path / "run")
    assert [one for one in shown if one["step"] > one["num_steps"]] == []
    first = WARM_UP_STEPS + TIMED_STEPS
    rows = RunDir(tmp_path / "run").read_metrics()
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert not any(math.isnan(row["val_iou"]) for row in rows)
    position = checkpoint.load(tmp_path / "run" / "last.pt")["position"]
    assert position["schedule"] == [0, first + 6]
    assert position["steps_per_epoch"] == 2
    interrupt_after(first + 2, job, tmp_path / "parted", monkeypatch)  # the last step of an epoch
    run_it(job, tmp_path / "parted", resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "parted")
    run_it(replace(job, max_minutes=60.0), tmp_path / "run", resume=True)
    assert len(RunDir(tmp_path / "run").read_metrics()) == 8


def test_steps_are_shown_within_an_epoch(
    cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brats_train.training.step_display.StepDisplay.is_due", lambda self: True)
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "brats_train.training.step_display.StepDisplay.show",
        lambda self, **values: shown.append(values),
    )
    run_it(job_of(cache_path, "epochs=2", "batch_size=4"), tmp_path / "run")
    num_steps = shown[0]["num_steps"]
    assert [one["step"] for one in shown] == [*range(1, num_steps + 1)] * 2
    assert [one["num_left"] for one in shown] == [*reversed(range(2 * num_steps))]
    for epoch, row in enumerate(RunDir(tmp_path / "run").read_metrics(), start=1):
        (last,) = (one for one in shown if (one["epoch"], one["step"]) == (epoch, num_steps))
        assert last["loss"] == pytest.approx(row["train_loss"], rel=1e-6)
