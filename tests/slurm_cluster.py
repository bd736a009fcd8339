"""A private SLURM cluster of one node, this machine, for tests. Linux and root only."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path

PORTS = (16817, 16818)
_CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthInfo=socket={folder}/munge.sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=bf_interval=1,sched_interval=2,batch_sched_delay=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=2
MinJobAge=3600
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
# Without an accounting database submitit would never learn that a job died: this asks the
# controller instead, which remembers jobs for an hour.
_SACCT = r"""#!/bin/bash
echo "JobID|State|NodeList"
while [ $# -gt 0 ]; do
  [ "$1" = -j ] && scontrol --oneliner show job "$2" 2>/dev/null | while read -r line; do
    field() { sed -n "s/.*\b$1=\([^ ]*\).*/\1/p" <<<"$line"; }
    job=$(field JobId) array=$(field ArrayJobId) task=$(field ArrayTaskId)
    case $task in "") ;; *[-,%]*) job="${array}_[$task]" ;; *) job="${array}_$task" ;; esac
    echo "$job|$(field JobState)|$(field NodeList)"
  done
  shift
done
"""


def obstacle() -> str | None:
    """Why no cluster can be started here, if so."""
    if os.name != "posix" or os.geteuid() != 0:
        return "a private SLURM cluster needs root"
    missing = [name for name in ("slurmctld", "slurmd", "munged") if not shutil.which(name)]
    if missing:
        return f"SLURM is not installed ({', '.join(missing)}: apt-get install slurm-wlm munge)"
    return None


class Cluster:
    """Started on ``cpus`` processors with its files in ``folder``; ``stop`` ends it."""

    def __init__(self, folder: Path, cpus: int) -> None:
        self.folder = folder
        for name in ("state", "spool", "bin"):
            (folder / name).mkdir(parents=True)
        folder.chmod(0o755)
        host = os.uname().nodename.split(".")[0]
        config = _CONFIG.format(host=host, folder=folder, cpus=cpus, ports=PORTS)
        (folder / "slurm.conf").write_text(config)
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        sacct = folder / "bin" / "sacct"
        sacct.write_text(_SACCT)
        sacct.chmod(0o755)
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        self.environment = {
            **os.environ,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        }
        self._run(
            "munged",
            "--force",
            f"--key-file={key}",
            f"--socket={folder / 'munge.sock'}",
            f"--pid-file={folder / 'munged.pid'}",
            f"--log-file={folder / 'munged.log'}",
            f"--seed-file={folder / 'munged.seed'}",
        )
        self._run("slurmctld", "-i", "-f", str(folder / "slurm.conf"))
        self._run("slurmd", "-f", str(folder / "slurm.conf"))
        for _ in range(200):
            if self._run("sinfo", "-h", "-o", "%T", check=False).strip() == "idle":
                return
            time.sleep(0.1)
        raise RuntimeError((folder / "slurmctld.log").read_text()[-2000:])

    def _run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if check and done.returncode:
            raise RuntimeError(f"{command[0]}: {done.stderr.strip()}")
        return done.stdout

    def running(self) -> list[str]:
        """Ids of the jobs that run now, array tasks one by one."""
        return self._run("squeue", "-h", "-r", "-t", "R", "-o", "%i").split()

    def requeue(self, job: str) -> None:
        """Kill a job and queue it again, as a preemption does."""
        self._run("scontrol", "requeue", job, check=False)

    def stop(self) -> None:
        """End all jobs and daemons."""
        self._run("scancel", "--full", "--signal=KILL", "--user=root", check=False)
        for name in ("slurmd", "slurmctld", "munged"):
            file = self.folder / f"{name}.pid"
            if file.exists():
                _end(int(file.read_text()))


def _end(process: int) -> None:
    """Ask a process to end; after eight seconds it is made to."""
    try:
        os.kill(process, signal.SIGTERM)
        for _ in range(80):
            os.kill(process, 0)
            time.sleep(0.1)
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return
