"""What watches over one job of the stand-in from its submission to its end: a process of its own, gone when the job is.

The job's session is led by a login shell that reads the path of the script, as PBS starts it. At the end of the walltime and
at `qdel` every process of the session gets SIGTERM, children first, and SIGKILL `kill_delay` seconds later. When the leader
ends by itself, whatever it left in the session is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import server

TICK_S = 0.05
WALLTIME = -29  # PBS's exit status of a job that was killed at the end of it


class Gone(Exception):
    """The server's folder is being closed, or is not there any more."""


def main(job: str) -> None:
    leader = None
    try:
        waited = waited_for_nodes(job)
        if waited:
            leader = started(job, waited)
            status = watched(job, leader)
            over(job, status)
        else:
            over(job, 0)
    except (Gone, FileNotFoundError):
        pass
    finally:
        if leader:
            end(leader.pid, signal.SIGKILL)


def waited_for_nodes(job: str) -> dict[str, Any] | None:
    """Until its turn has come; None if it was deleted before."""
    while True:
        if (server.root() / "closing").exists() or not server.root().is_dir():
            raise Gone
        with server.locked():
            found = server.read(job)
            if "deleted" in found:
                return None
            if found["job_state"] == "H" and all_over(found["depend"]):
                found["job_state"] = "Q"
            if found["job_state"] == "Q" and (nodes := free(found)):
                found |= {"job_state": "R", "stime": time.time(), "exec_host": "+".join(f"{n}/0" for n in nodes)}
                server.write(job, found)
                (server.root() / "aux" / job).write_text("".join(f"{n}\n" for n in nodes))
                return found
            server.write(job, found)
        time.sleep(TICK_S)


def all_over(depend: str) -> bool:
    """afterany: its jobs have ended, however they ended."""
    ids = [word for kind in depend.split(",") for word in kind.split(":")[1:]]
    return all((server.read(server.full_id(job)) or {"job_state": "F"})["job_state"] in server.OVER for job in ids)


def free(job: dict[str, Any]) -> list[str]:
    """Nodes for it; [] while too few are idle or its queue runs as many jobs of this user as it may."""
    running = [other for other in server.jobs().values() if other["job_state"] in ("R", "E")]
    queue = server.settings()["queues"][job["queue"]]
    if queue.get("running") and sum(other["queue"] == job["queue"] for other in running) >= queue["running"]:
        return []
    taken = {place.split("/")[0] for other in running for place in other["exec_host"].split("+")}
    idle = [node for node in server.settings()["nodes"] if node not in taken]
    count = int(job["Resource_List"].get("nodect", 1))
    return idle[:count] if len(idle) >= count else []


def started(job: str, found: dict[str, Any]) -> subprocess.Popen[bytes]:
    """The login shell, with the script's path on its input. The environment is that of a new login, with PBS's names."""
    script, home = server.root() / "jobs" / f"{job}.SC", server.root() / "home"
    variables = {name: value for name, value in found["Variable_List"].items()}
    environment = {
        **variables, "HOME": str(home), "USER": "user", "LOGNAME": "user", "SHELL": "/bin/bash", "PATH": os.defpath,
        "PBS_JOBID": job, "PBS_JOBNAME": found["Job_Name"], "PBS_QUEUE": found["queue"], "PBS_ENVIRONMENT": "PBS_BATCH",
        "PBS_NODEFILE": str(server.root() / "aux" / job), "PBS_NODENUM": "0", "PBS_TASKNUM": "1", "NCPUS": "1",
        "TMPDIR": server.settings()["tmp"], "PBS_STAND_IN": str(server.root()),
    }  # fmt: skip
    leader = subprocess.Popen(
        ["-bash"], executable="/bin/bash", cwd=home, env=environment, stdin=subprocess.PIPE,
        stdout=open(output(job, found), "ab"), stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    assert leader.stdin
    leader.stdin.write(f"{script}\n".encode())
    leader.stdin.close()
    server.change(job, session_id=leader.pid)
    return leader


def watched(job: str, leader: subprocess.Popen[bytes]) -> int:
    """Until the job's session is over; its exit status as PBS tells it."""
    found = server.read(job)
    ends = found["stime"] + server.seconds(found["Resource_List"]["walltime"])
    killed, ended = 0.0, 0
    while leader.poll() is None or (killed and session(leader.pid)):
        if (server.root() / "closing").exists() or not server.root().is_dir():
            raise Gone
        found = server.read(job)
        if not killed and (time.time() >= ends or "deleted" in found):
            if time.time() >= ends:
                ended = WALLTIME
                limit = found["Resource_List"]["walltime"]
                with open(output(job, found), "a") as file:
                    file.write(
                        f"=>> PBS: job killed: walltime {server.seconds(limit) + 1} exceeded limit {server.seconds(limit)}\n"
                    )
            end(leader.pid, signal.SIGTERM)
            killed = time.time() + server.settings()["kill_delay"]
        if killed and time.time() >= killed:
            end(leader.pid, signal.SIGKILL)
        time.sleep(TICK_S)
    end(leader.pid, signal.SIGKILL)
    return ended or (leader.returncode if leader.returncode >= 0 else 256 - leader.returncode)


def over(job: str, status: int) -> None:
    """Its output goes where it belongs; it stays known as finished."""
    found = server.change(job, job_state="E")
    spooled = server.root() / "jobs" / f"{job}.OU"
    if spooled.is_file():
        Path(destination(found)).write_bytes(spooled.read_bytes())
        spooled.unlink()
    server.change(job, job_state="F", Exit_status=status, mtime=time.time())


def output(job: str, found: dict[str, Any]) -> str:
    """Where it writes: a spool file until the end, or (`-k` with `d`) at once where the user looks."""
    return destination(found) if "d" in found["Keep_Files"] else str(server.root() / "jobs" / f"{job}.OU")


def destination(found: dict[str, Any]) -> str:
    return found["Output_Path"].partition(":")[2]


def session(leader: int) -> list[int]:
    """The processes of a session, the youngest first."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append((int(fields[19]), int(entry.name)))
    return [pid for _, pid in sorted(found, reverse=True)]


def end(leader: int, number: int) -> None:
    """A signal to all of a session; SIGKILL until none is left, since one may be starting another just then."""
    while pids := session(leader):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        if number != signal.SIGKILL:
            return
        time.sleep(TICK_S)


if __name__ == "__main__":
    main(sys.argv[1])
