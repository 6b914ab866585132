#!/bin/sh
# A SLURM of one machine, to try hydra/launcher=slurm on: slurmctld, slurmd and munge of Debian's packages, as root.
#
#   apt-get install slurmctld slurmd slurm-client munge
#   benchmarks/slurm.sh FOLDER start     # partitions: long (preempted, its jobs are requeued) and urgent
#   export SLURM_CONF=FOLDER/slurm.conf
#   dlrun train -m hydra/launcher=slurm hydra.launcher.partition=long optimizer.lr=0.1,0.01
#   benchmarks/slurm.sh FOLDER stop
set -eu
folder=$(realpath -m "$1")
host=$(hostname -s)

start() {
    mkdir -p "$folder/state" "$folder/spool" "$folder/munge"
    chmod 700 "$folder/munge"
    [ -f "$folder/munge/key" ] || { head -c 1024 /dev/urandom > "$folder/munge/key"; chmod 400 "$folder/munge/key"; }
    cat > "$folder/slurm.conf" <<CONF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
MinJobAge=3600
ReturnToService=2
SchedulerParameters=sched_interval=5,bf_interval=5
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=long Nodes=$host Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=60 State=UP
PartitionName=urgent Nodes=$host PriorityTier=10 PreemptMode=OFF State=UP
CONF
    munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munge/pid" \
        --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
    slurmctld -f "$folder/slurm.conf"
    slurmd -f "$folder/slurm.conf"
    for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
        SLURM_CONF="$folder/slurm.conf" sinfo && break
        sleep 2
    done
    echo "export SLURM_CONF=$folder/slurm.conf"
}

stop() {
    for name in slurmd.pid slurmctld.pid munge/pid; do
        [ ! -f "$folder/$name" ] || kill "$(cat "$folder/$name")" || true
    done
}

"$2"
