#!/usr/bin/env bash
# Training on two nodes of four GPUs with SLURM: sbatch scripts/slurm_train.sh
#
# Ten minutes before the time limit SLURM sends SIGTERM to this script, which passes it on: the run saves
# a checkpoint and exits, and the job requeues itself to resume. Set CACHE and RUN to paths that all
# nodes share.
#SBATCH --job-name=brats
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@600
set -euo pipefail

cache=${CACHE:?a cache, or the pattern of its shards}
run=${RUN:?the run directory}
host=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

options=(--resume) # or begin it, where there is no run yet
for file in $cache; do options+=(--cache "$file"); done

srun torchrun \
    --nnodes "$SLURM_NNODES" --nproc-per-node "$SLURM_GPUS_ON_NODE" \
    --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$host:29500" \
    --max-restarts 3 \
    --no-python brats train --run-dir "$run" "${options[@]}" &
training=$!

warned=false
trap 'warned=true; kill -TERM "$training"' TERM
status=0
wait "$training" || status=$?
if $warned; then
    wait "$training" || true # the first wait was cut short by the warning itself
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$status"
