#!/usr/bin/env bash
#SBATCH --job-name=ibgan
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
# A job of one process a node: sbatch scripts/slurm.sh --config=configs/celeba.py
# The processes find each other by what Slurm tells them. Two minutes before the time is up they
# save and end; the same command, or the requeued job, goes on exactly. The workdir and the data
# must lie on a file system that all nodes share.
set -euo pipefail
export XLA_PYTHON_CLIENT_MEM_FRACTION=0.9
srun --kill-on-bad-exit=1 .venv/bin/python launch.py "$@"
