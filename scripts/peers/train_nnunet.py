"""nnU-Net v2 `2d`, trained on the cases of all folds but one:

    python -m peers.train_nnunet JOB.json FOLD

Fingerprint, plans and preprocessing are its own, of all cases, and not in the time. The trainer is
nnU-Net's, except for a schedule that ends within the minutes: the polynomial rate follows the
clock, no epoch is validated, and a step takes 16 slices at most. The last weights predict, averaged
over mirrored images, as nnU-Net does.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from brats_cache.common.process import usable_cores
from peers.builders import link_nnunet_raw
from peers.folds import FoldsJob, publish, train_from_command_line

MOST_SLICES = 16  # of a step, as `strong` takes; the plans want more than a CPU has time for
EXPONENT = 0.9  # of nnU-Net's PolyLRScheduler
NAME = "Dataset001_Peers"


def main() -> None:
    job, fold = train_from_command_line()
    folders = {name: job.folder / name for name in ("raw", "preprocessed", "results")}
    os.environ |= {f"nnUNet_{name}": str(folder) for name, folder in folders.items()}
    preprocess(job, folders)
    os.environ |= {"nnUNet_n_proc_DA": str(usable_cores() - 1), "nnUNet_def_n_proc": "1"}

    import torch  # nnU-Net reads its folders from the environment when it is imported

    torch.manual_seed(0)
    torch.set_num_threads(usable_cores())
    trainer = make_trainer(folders["preprocessed"], fold, 60 * job.minutes)
    trainer.run_training()
    trainer.perform_actual_validation()
    for case in job.unseen(fold):
        (made,) = Path(trainer.output_folder, "validation").glob(f"{case.id}.nii*")
        publish(made, job, case)


def preprocess(job: FoldsJob, folders: dict[str, Path]) -> None:
    """Lays out raw data, plans and preprocesses, once for all folds."""
    splits = folders["preprocessed"] / NAME / "splits_final.json"
    if splits.is_file():
        return
    for name in ("raw", "preprocessed"):  # what an interrupted process left
        shutil.rmtree(folders[name], ignore_errors=True)
    link_nnunet_raw(job.cases, folders["raw"], regions=job.regions, written=job.written)
    program = Path(sys.executable).with_name("nnUNetv2_plan_and_preprocess")
    words = ["-d", 1, "-c", "2d", "-npfp", usable_cores(), "-np", usable_cores()]
    subprocess.run([str(word) for word in (program, *words)], check=True)
    every = [
        {
            "train": [case.id for case in job.seen(fold)],
            "val": [case.id for case in job.unseen(fold)],
        }
        for fold in sorted(job.folds)
    ]
    splits.write_text(json.dumps(every))


def make_trainer(preprocessed: Path, fold: int, seconds: float) -> Any:
    """nnU-Net's trainer with a schedule of so many seconds."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    class ClockTrainer(nnUNetTrainer):  # type: ignore[misc]  # has no types
        def run_training(self) -> None:
            started = time.monotonic()
            self.on_train_start()
            self.network.train()
            num_steps = 0
            while (share := (time.monotonic() - started) / seconds) < 1:
                rate = self.initial_lr * (1 - share) ** EXPONENT
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                loss = self.train_step(next(self.dataloader_train))["loss"]
                num_steps += 1
            print(f"nnunet: {num_steps} steps, last loss {float(loss):.3f}", flush=True)
            self.disable_checkpointing = True
            self.on_train_end()

    plans = json.loads((preprocessed / NAME / "nnUNetPlans.json").read_text())
    planned = plans["configurations"]["2d"]
    print(f"nnunet: plans {planned['batch_size']} slices a step of {planned['patch_size']} pixels")
    planned["batch_size"] = min(planned["batch_size"], MOST_SLICES)
    dataset = json.loads((preprocessed / NAME / "dataset.json").read_text())
    plans["continue_training"] = False
    return ClockTrainer(plans, "2d", fold, dataset, device=torch.device("cpu"))


if __name__ == "__main__":
    main()
