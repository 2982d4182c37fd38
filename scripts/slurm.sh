#!/usr/bin/env bash
#SBATCH --job-name=ibgan
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
# A job of one process a node: sbatch scripts/slurm.sh --config=configs/celeba.py
# The processes find each other by what Slurm tells them. The workdir and the data must lie on a
# file system that all nodes share. The job requeues itself, and goes on exactly,
# - when the time that --config.train.max_minutes gives is up: all is saved, scored and reported
#   (status 3). For the 24 hours above, --config.train.max_minutes=1430 leaves ten minutes to start;
# - two minutes before Slurm's own limit (USR1), if it comes to that: all is saved.
set -euo pipefail
export XLA_PYTHON_CLIENT_MEM_FRACTION=0.9
warned="" struck="" step=""
warn() {
    warned=1 struck=1
    [[ -z $step ]] || kill -TERM "$step" || true # srun passes it on to every process
}
trap warn USR1

# A process that fails ends the others itself, and one that ends with 3 must not have them killed.
srun --kill-on-bad-exit=0 .venv/bin/python launch.py "$@" &
step=$!
[[ -z $warned ]] || kill -TERM "$step" # it came before there was anything to pass it to
while :; do
    struck="" status=0
    wait "$step" || status=$?
    [[ -n $struck ]] || break # a signal ends `wait`, not what it waits for
done

# After a warning the processes end with 1, or however Slurm puts it; 0 and 2 are final.
if [[ $status == 3 || (-n $warned && $status != 0 && $status != 2) ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
