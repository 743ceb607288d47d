#!/usr/bin/env bash
# Trains on several machines of a Slurm cluster, one worker each:
#   sbatch --nodes=4 configs/launch/slurm.sh configs/multi_gpu.yaml distribute.strategy=multi_worker
# The checkout, the run folder and the caches must be on a file system that all nodes share.
#SBATCH --ntasks-per-node=1
# What a worker needs of its node; sbatch's own options win over these lines.
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --requeue
# Slurm sends SIGTERM so many seconds before the end: time for a checkpoint. The requeued job goes on from it.
#SBATCH --signal=TERM@120
set -euo pipefail

PORT=${PORT:-12345}
MOST_RESTARTS=${MOST_RESTARTS:-100}
WORKERS=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed "s/.*/\"&:$PORT\"/" | paste -sd,)
export WORKERS

# Each task knows its number; the list of workers is the same for all.
status=0
srun bash -c '
  export TF_CONFIG="{\"cluster\": {\"worker\": [$WORKERS]}, \"task\": {\"type\": \"worker\", \"index\": $SLURM_PROCID}}"
  exec .venv/bin/tfmlm train "$@"
' train "$@" || status=$?

# 143: told to end, and saved. 75: a worker was lost. Slurm itself requeues only after a preemption or a dead node.
if [[ ($status == 143 || $status == 75) && ${SLURM_RESTART_COUNT:-0} -lt $MOST_RESTARTS ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
