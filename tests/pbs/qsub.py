"""`qsub` of the stand-in: directives of the script, laid over by the command line; checks; a job and its `mom.py`."""

from __future__ import annotations

import getopt
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import server

LETTERS = "A:N:S:W:e:j:k:l:m:M:o:q:r:v:"


def main(arguments: list[str]) -> None:
    try:
        given, operands = getopt.getopt(arguments, LETTERS)
    except getopt.GetoptError as error:
        server.fail("qsub", f"{error}\nusage: qsub [-A account] [-N name] … [script]", 2)
    script = Path(operands[0]).read_bytes().decode() if operands else sys.stdin.read()
    name = Path(operands[0]).name if operands else "STDIN"
    asked = options(directives(script))
    for letter, value in options(given).items():
        asked[letter] = {**asked.get(letter, {}), **value} if letter == "l" else value
    attributes = described(asked, name, arguments)
    with server.locked():
        checked(attributes)
        job = f"{number()}.{server.settings()['name']}"
        if Path(attributes["Output_Path"].partition(":")[2]).is_dir():
            attributes["Output_Path"] += f"/{attributes['Job_Name']}.o{job.split('.')[0]}"
        (server.root() / "jobs" / f"{job}.SC").write_text(script)
        (server.root() / "jobs" / f"{job}.SC").chmod(0o700)
        server.write(job, attributes)
    subprocess.Popen(
        [sys.executable, "-S", str(Path(__file__).with_name("mom.py")), job],
        env={"PBS_STAND_IN": str(server.root())},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=open(server.root() / f"{job}.mom", "wb"),
        start_new_session=True, cwd="/",
    )  # fmt: skip
    print(job)


def directives(script: str) -> list[tuple[str, str]]:
    """The options in the comments before the first command."""
    found: list[tuple[str, str]] = []
    for line in script.splitlines()[1 if script.startswith("#!") else 0 :]:
        if line.startswith("#PBS"):
            letter, _, value = line[4:].strip().partition(" ")
            value = value.strip().strip("\"'")
            if not re.fullmatch("-[A-Za-z]", letter) or letter[1] not in LETTERS:
                server.fail("qsub", f"directive error: {line[4:].strip()}", 1)
            found.append((letter, value))
        elif line.strip() and not line.startswith(("#", ":")):
            break
    return found


def options(given: list[tuple[str, str]]) -> dict[str, Any]:
    """By letter; the resources of all -l together."""
    found: dict[str, Any] = {}
    for letter, value in given:
        if letter == "-l":
            resources = dict(word.partition("=")[::2] for word in value.split(","))
            found.setdefault("l", {}).update(resources)
        else:
            found[letter[1:]] = value
    return found


def described(asked: dict[str, Any], name: str, arguments: list[str]) -> dict[str, Any]:
    """The attributes of the new job."""
    settings, now = server.settings(), int(time.time())
    resources = {"place": "free", **asked.get("l", {})}
    if "walltime" in resources:
        resources["walltime"] = server.clock(server.seconds(resources["walltime"]))
    if "select" in resources:
        resources["nodect"] = str(server.nodes(resources["select"]))
    called, queue = asked.get("N", name[:15]), asked.get("q", settings["default_queue"])
    if not re.fullmatch(r"[A-Za-z0-9_.+-]{1,230}", called):
        server.fail("qsub", "illegal -N value", 2)
    depend = dict(word.partition("=")[::2] for word in asked.get("W", "").split(",")).get("depend", "")
    outside = {
        f"PBS_O_{key}": os.environ[key] for key in ("HOME", "PATH", "LANG", "SHELL", "LOGNAME") if key in os.environ
    }
    outside |= {"PBS_O_WORKDIR": os.getcwd(), "PBS_O_QUEUE": queue, "PBS_O_HOST": settings["name"]}
    return {
        "Job_Name": called, "Job_Owner": f"user@{settings['name']}", "job_state": "H" if depend else "Q",
        "queue": queue, "server": settings["name"], "ctime": now, "qtime": now, "mtime": now,
        "Account_Name": asked.get("A", ""), "Join_Path": asked.get("j", "n"), "Keep_Files": asked.get("k", "n"),
        "Output_Path": f"{settings['name']}:{Path(os.getcwd(), asked.get('o', ''))}", "Error_Path": asked.get("e", ""), "Resource_List": resources,
        "depend": depend, "Variable_List": {**outside, **variables(asked.get("v", ""))},
        "Submit_arguments": " ".join(arguments),
    }  # fmt: skip


def variables(text: str) -> dict[str, str]:
    """Of `-v`: a comma ends a value unless it is quoted or has a backslash before it; a name alone is taken from here.

    Quotation marks do not get through, whichever way they come.
    """
    found: dict[str, str] = {}
    for word in re.findall(r"""(?:\\.|"[^"]*"|'[^']*'|[^,"'])+""", text):
        name, equals, value = word.partition("=")
        if not equals and name not in os.environ:
            server.fail("qsub", "cannot send environment with the job", 1)
        found[name] = re.sub(r"""\\([,"'])|["']""", r"\1", value) if equals else re.sub("[\"']", "", os.environ[name])
    return found


def checked(attributes: dict[str, Any]) -> None:
    """Refuses what the server refuses, in its words where PBS has some; routes to a queue where jobs run."""
    settings, resources = server.settings(), attributes["Resource_List"]
    for name in settings["required"]:
        if not (resources.get(name) or (name == "account" and attributes["Account_Name"])):
            server.fail("qsub", f"the job names no {name}: Rejected by 'required' hook on job submission", 1)
    for kind in attributes["depend"].split(",") if attributes["depend"] else []:
        verb, *ids = kind.split(":")
        if verb != "afterany" or not ids or not all(server.read(server.full_id(job)) for job in ids):
            server.fail("qsub", "illegal -W value" if verb != "afterany" else f"Unknown Job Id {kind}", 2)
    queues = settings["queues"]
    queue = queues.get(attributes["queue"])
    if queue is None:
        server.fail("qsub", "Unknown queue", server.NO_QUEUE)
    if queue.get("route"):
        fitting = [name for name in queue["route"] if fits(queues[name], resources)]
        if not fitting:
            server.fail("qsub", "Job rejected by all possible destinations", server.NO_ROUTE)
        attributes["queue"] = fitting[0]
    elif queue.get("from_route_only"):
        server.fail("qsub", "Queue not enabled", server.NO_QUEUE)
    elif not fits(queue, resources):
        server.fail("qsub", "Job violates queue and/or server resource limits", server.OVER_LIMIT)
    waiting = [
        j for j in server.jobs().values() if j["queue"] == attributes["queue"] and j["job_state"] not in server.OVER
    ]
    if queue.get("most_jobs") and len(waiting) >= queue["most_jobs"]:
        server.fail("qsub", f"would exceed queue {attributes['queue']}'s per-user limit", server.OVER_LIMIT)


def fits(queue: dict[str, Any], resources: dict[str, str]) -> bool:
    count = int(resources.get("nodect", 1))
    asked = server.seconds(resources.get("walltime", "0"))
    return queue["nodes"][0] <= count <= queue["nodes"][1] and asked <= queue["hours"] * 3600


def number() -> int:
    file = server.root() / "next"
    found = json.loads(file.read_text()) if file.is_file() else 1
    file.write_text(str(found + 1))
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
