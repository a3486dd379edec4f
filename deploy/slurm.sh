#!/usr/bin/env bash
# Train one run on several nodes of a Slurm cluster: sbatch slurm.sh
#
# The working directory and the caches must be on a file system that all nodes share. A job that
# Slurm stops and queues again, or that is submitted again, resumes from the last checkpoint.
#SBATCH --job-name=pennyweight
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
#SBATCH --open-mode=append
set -euo pipefail

source .venv/bin/activate
export PENNYWEIGHT_CACHE="$PWD/cache" HF_HOME="$PWD/cache/huggingface"
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / 4))
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# One torchrun on each node starts one process for each GPU. If one of them ends, so does the job.
srun --kill-on-bad-exit=1 torchrun \
    --nnodes "$SLURM_NNODES" --nproc-per-node 4 \
    --rdzv-backend c10d --rdzv-endpoint "$head:29500" --rdzv-id "$SLURM_JOB_ID" \
    -m pennyweight train recipe.toml --out runs/slurm --resume
