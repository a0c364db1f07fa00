#!/usr/bin/env bash
# A cache built in eight parts by a SLURM array, each on a node of its own:
#
#   sbatch scripts/slurm_build_cache.sh /data/BraTS2021 /scratch/brats
#
# A part that was stopped, by its time limit too, resumes when it is submitted again, alone as well
# (sbatch --array=3 ...). Afterwards:
#
#   brats info /scratch/brats/part-*.h5          # what is there, and what is missing
#   brats verify /scratch/brats/part-*.h5
#   brats train $(printf -- '--cache %s ' /scratch/brats/part-*.h5)
#
#SBATCH --job-name=brats-cache
#SBATCH --array=1-8
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-cpu=1G
#SBATCH --time=01:00:00
#SBATCH --requeue
set -euo pipefail

data=${1:?the folder with the scans} out=${2:?the folder for the parts}
parts=8 # as many as --array above
mkdir -p -- "$out"
exec brats build-cache "$data" \
    --out "$out/part-$SLURM_ARRAY_TASK_ID.h5" \
    --shard "$SLURM_ARRAY_TASK_ID/$parts" \
    --workers "${SLURM_CPUS_PER_TASK:-1}"
