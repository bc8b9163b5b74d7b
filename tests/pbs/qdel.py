"""`qdel` of the stand-in: a job that waits is over at once; one that runs is sent SIGTERM, later SIGKILL, by its `mom.py`."""

from __future__ import annotations

import sys

import server


def main(ids: list[str]) -> None:
    status = 0
    for job in map(server.full_id, ids):
        with server.locked():
            found = server.read(job)
            if found is None:
                print(f"qdel: Unknown Job Id {job}", file=sys.stderr)
                status = server.UNKNOWN
            elif found["job_state"] in server.OVER:
                print(f"qdel: Job has finished {job}", file=sys.stderr)
                status = server.FINISHED
            else:
                server.write(job, {**found, "deleted": 1})
    sys.exit(status)


if __name__ == "__main__":
    main(sys.argv[1:])
