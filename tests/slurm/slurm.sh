#!/usr/bin/env bash
# Start a Slurm of one node on this machine, for the tests: munge, slurmctld and slurmd, without
# systemd, cgroups or a database. Needs root, and Debian's slurm-wlm and munge.
# Everything lies in one folder; the tests find it by SLURM_CONF, which the first form prints:
#   tests/slurm/slurm.sh start FOLDER
#   tests/slurm/slurm.sh stop FOLDER
set -euo pipefail
action=$1
folder=$(realpath -m "$2")
if [ "$action" = stop ]; then
  for file in slurmctld.pid slurmd.pid munge/munged.pid; do
    [ ! -f "$folder/$file" ] || kill "$(cat "$folder/$file")" 2>/dev/null || true
  done
  exit 0
fi
mkdir -p "$folder"/{state,spool,munge}
export SLURM_CONF="$folder/slurm.conf"

if [ -f "$SLURM_CONF" ] && timeout 5 sinfo -h >/dev/null 2>&1; then
  echo "$SLURM_CONF"
  exit 0
fi

host=$(hostname -s)
# Jobs of the tests may each have a core, however few the machine has.
cores=$(nproc)
memory=$(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
cat >"$SLURM_CONF" <<EOF
ClusterName=tilesegment
SlurmctldHost=$host(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket=$folder/munge/munge.socket
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
SlurmctldPort=26817
SlurmdPort=26818
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
KillWait=5
MaxArraySize=1001
NodeName=$host NodeAddr=127.0.0.1 CPUs=$((4 * cores)) RealMemory=$((memory * 9 / 10)) State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=1-00:00:00 OverSubscribe=FORCE:4 State=UP
EOF

chmod 755 "$folder" "$folder/munge"
chown -R munge:munge "$folder/munge"
if [ ! -f "$folder/munge/munge.key" ]; then
  head -c 128 /dev/urandom >"$folder/munge/munge.key"
  chown munge:munge "$folder/munge/munge.key"
  chmod 400 "$folder/munge/munge.key"
fi
cd "$folder"
setpriv --reuid=munge --regid=munge --clear-groups munged --force \
  --key-file="$folder/munge/munge.key" --socket="$folder/munge/munge.socket" \
  --pid-file="$folder/munge/munged.pid" --log-file="$folder/munge/munged.log" \
  --seed-file="$folder/munge/munged.seed"
slurmctld -f "$SLURM_CONF"
slurmd -f "$SLURM_CONF" -N "$host"
for _ in $(seq 50); do
  if [ "$(timeout 5 sinfo -h -o %T 2>/dev/null)" = idle ]; then
    echo "$SLURM_CONF"
    exit 0
  fi
  sleep 0.2
done
echo "slurm did not start; see $folder/*.log" >&2
tail -n 5 "$folder"/*.log >&2
exit 1
