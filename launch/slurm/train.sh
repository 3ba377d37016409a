#!/usr/bin/env bash
# A training job that survives its time limit: SLURM sends SIGTERM five minutes before the end, every rank finishes its
# step, the checkpoint is written, and the job queues itself again and goes on from there. A node that dies is requeued
# by SLURM itself; the run then goes on from the newest checkpoint that is whole.
#
#   sbatch --nodes 2 launch/slurm/train.sh configs/align/hrc_gemma2b.yaml run.folder=/shared/runs/a train.processes=16
#
#SBATCH --job-name=arbiter
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@300
set -uo pipefail
[ $# -ge 1 ] || { echo "usage: sbatch launch/slurm/train.sh CONFIG [key=value ...]" >&2; exit 2; }

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=${MASTER_PORT:-29500}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$SLURM_CPUS_PER_TASK}

# One task a rank and no launcher in between: torchrun would give its workers 30 seconds after SIGTERM, then kill them.
srun --kill-on-bad-exit=0 bash -c '
  export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS LOCAL_WORLD_SIZE=$SLURM_NTASKS_PER_NODE
  exec python -m launch run "$@"' _ "$@"
status=$?

# 143 = 128 + SIGTERM: stopped on request with a checkpoint in place. Anything else is the job's own end or error.
if [ "$status" -eq 143 ]; then
  echo "stopped by SIGTERM with a checkpoint; queueing job $SLURM_JOB_ID again"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
