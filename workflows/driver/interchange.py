"""Parsl's interchanges are processes of their own between the driver and its workers. One that dies is never missed by Parsl.

Its tasks would be waited for for ever, and so would the answer to a question that it was just asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from apps.records import MeritError

EVERY_S = 1.0
PATIENCE_S = 60.0  # for an answer, which takes milliseconds


def watched(executors: Iterable[Any]) -> Callable[[], None]:
    """From here on the death of an interchange fails the tasks of its executor; the function that ends the watch."""
    over = threading.Event()
    between = [executor for executor in executors if getattr(executor, "interchange_proc", None)]
    for executor in between:
        _be_answered(executor.command_client)
    if between:
        threading.Thread(target=_watch, args=(between, over), name="interchanges", daemon=True).start()
    return over.set


def unheard(executors: Iterable[Any]) -> None:
    """From here on results are not taken in: of a task that was given up Parsl's thread would die, with a traceback."""
    for executor in executors:
        if getattr(executor, "_result_queue_thread", None):
            executor._result_queue_thread_exit.set()
            executor._result_queue_thread.join(PATIENCE_S)


def _be_answered(client: Any) -> None:
    import zmq

    for option in (zmq.RCVTIMEO, zmq.SNDTIMEO):
        client.zmq_socket.setsockopt(option, int(PATIENCE_S * 1000))


def _watch(executors: list[Any], over: threading.Event) -> None:
    while not over.wait(EVERY_S):
        for executor in executors:
            status = executor.interchange_proc.poll()
            if status is not None and not executor.bad_state_is_set:
                told = f"the interchange of {executor.label} has ended (status {status}); what is finished is kept"
                executor.set_bad_state_and_fail_all(MeritError(told))
