#!/usr/bin/env bash
# A Slurm cluster of one node, this machine, for tests: `cluster.sh start`, `cluster.sh stop`.
#
# Needs root and Debian or Ubuntu; installs slurm-wlm and munge where they are absent. The
# configuration has to be /etc/slurm/slurm.conf, because jobs do not inherit SLURM_CONF; one that
# this script has not written is left alone. There is no accounting, as on many small clusters, and
# a job that takes more memory than it asked for is killed within seconds.
#
# Exit status 3: there can be no cluster here, for a reason that is printed.
set -euo pipefail

CONF=/etc/slurm/slurm.conf
MARK="# written by qFitLatent's tests/slurm/cluster.sh"
STATE=/var/lib/qfitlatent-slurm

stop() {
    for name in slurmd slurmctld; do
        if [ -s "$STATE/$name.pid" ]; then kill "$(cat "$STATE/$name.pid")" 2>/dev/null || true; fi
        rm -f "$STATE/$name.pid"
    done
    if [ -s "$STATE/munged.pid" ]; then kill "$(cat "$STATE/munged.pid")" 2>/dev/null || true; fi
    rm -f "$STATE/munged.pid"
}

install_packages() {
    if command -v slurmctld && command -v slurmd && command -v munged; then return; fi >/dev/null
    export DEBIAN_FRONTEND=noninteractive
    local apt="timeout 300 apt-get -qq -o Acquire::http::Timeout=15"
    if ! { $apt update && $apt install -y --no-install-recommends slurm-wlm munge >/dev/null; }; then
        echo "slurm-wlm and munge are not here and cannot be installed." >&2
        exit 3
    fi
}

write_configuration() {
    if [ -e "$CONF" ] && ! grep -q "$MARK" "$CONF"; then
        echo "$CONF is not ours: this machine belongs to a cluster, which is not touched." >&2
        exit 3
    fi
    mkdir -p /etc/slurm "$STATE/ctld" "$STATE/slurmd"
    local host memory
    host=$(hostname -s)
    memory=$(awk '/MemTotal/{print int($2 / 1024)}' /proc/meminfo)
    cat > "$CONF" <<CONFIGURATION
$MARK
ClusterName=qfitlatent
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$STATE/ctld
SlurmdSpoolDir=$STATE/slurmd
SlurmctldPidFile=$STATE/slurmctld.pid
SlurmdPidFile=$STATE/slurmd.pid
SlurmctldLogFile=$STATE/slurmctld.log
SlurmdLogFile=$STATE/slurmd.log
MpiDefault=none
ReturnToService=2
# Cores and memory are what is scheduled; no cgroups, which a container may not offer: memory is
# watched by polling, and what exceeds its request is killed.
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
SchedulerParameters=sched_min_interval=500000,batch_sched_delay=0
# A make-believe GPU, so that jobs that ask for one are scheduled.
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(getconf _NPROCESSORS_ONLN) RealMemory=$memory Gres=gpu:1 State=UNKNOWN
# The names that profiles/slurm/config.yaml has as its placeholders.
PartitionName=cpu Nodes=$host Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=$host MaxTime=INFINITE State=UP
CONFIGURATION
    echo "NodeName=$host Name=gpu File=/dev/null" > /etc/slurm/gres.conf
}

start() {
    install_packages
    write_configuration
    stop
    if [ ! -s /etc/munge/munge.key ]; then mungekey --create; fi
    if ! munge -n 2>/dev/null | unmunge >/dev/null 2>&1; then
        mkdir -p /run/munge
        chown munge: /run/munge /etc/munge /etc/munge/munge.key /var/lib/munge /var/log/munge
        # As the user of the package, and through no service manager: containers have none.
        su munge -s /bin/sh -c "munged --force --pid-file=/run/munge/qfitlatent.pid"
        cp /run/munge/qfitlatent.pid "$STATE/munged.pid"
    fi
    rm -rf "$STATE/ctld" "$STATE/slurmd"
    mkdir -p "$STATE/ctld" "$STATE/slurmd"
    slurmctld
    slurmd
    for _ in $(seq 60); do
        if sinfo --noheader --format=%t 2>/dev/null | grep -q idle; then
            sinfo --format="%P %N %c cores %m MB %G %t"
            return
        fi
        sleep 0.5
    done
    echo "The node did not become idle within 30 s:" >&2
    tail -n 20 "$STATE/slurmctld.log" "$STATE/slurmd.log" >&2
    exit 1
}

"$1"
