"""Whether a node is fit for a job, judged by what it says (probe.py): against what is wanted, and against most other nodes.

Formulas on small values; nothing is asked or started here (preflight.py).
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from apps.platform.probe import Answer

ACCELERATORS = ("cuda", "xpu")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a node has to have."""

    devices: int = 0  # accelerators; 0 = as many as most nodes have
    free_gib: float = 1.0  # in each folder
    clock_s: float = 5.0  # between its clock and the driver's, at most
    share: float = 0.5  # of the usual memory and rate, which each accelerator must reach


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of a node."""

    answer: Answer | None = None  # None = it gave none
    asked: float = 0.0  # when, in epoch seconds by the driver's clock
    heard: float = 0.0  # and when the answer came
    silence: str = ""  # why there is no answer


@dataclass(frozen=True, slots=True)
class Usual:
    """What most nodes have. Of equally frequent values, that of the node which is named first."""

    versions: Mapping[str, str] = field(default_factory=dict)  # by module
    devices: int = 0
    memory_gib: float = 0.0  # the median over devices
    gflops: float = 0.0  # likewise


def usual(answers: Iterable[Answer]) -> Usual:
    answers = list(answers)
    devices = [device for answer in answers for device in answer.devices if not device.fault]
    modules = dict.fromkeys(module for answer in answers for module in answer.versions)
    return Usual(
        {module: _most(a.versions[module] for a in answers if module in a.versions) for module in modules},
        _most(len(answer.devices) for answer in answers) if answers else 0,
        statistics.median([device.memory_gib for device in devices] or [0.0]),
        statistics.median([device.gflops for device in devices] or [0.0]),
    )


def faults(found: Found, most: Usual, wanted: Wanted) -> list[str]:
    """Why a node is not fit; empty if it is."""
    answer = found.answer
    if answer is None:
        return [found.silence]
    faults = list(answer.faults)
    for module, there in answer.versions.items():
        if there != most.versions[module]:
            faults.append(f"{module} {there}, most nodes have {most.versions[module]}")
    for purpose, free in answer.free_gib.items():
        if free < wanted.free_gib:
            faults.append(f"{purpose}: {free:g} GiB free, {wanted.free_gib:g} wanted")
    if (apart := skew(found)) > wanted.clock_s:
        faults.append(f"its clock is {apart:.0f} s off, {wanted.clock_s:g} allowed")
    return faults + _of_devices(answer, most, wanted)


def _of_devices(answer: Answer, most: Usual, wanted: Wanted) -> list[str]:
    if answer.kind not in ACCELERATORS:
        return [f"{wanted.devices} accelerators wanted, none there"] if answer.kind and wanted.devices else []
    number, faults = wanted.devices or most.devices, []
    if len(answer.devices) != number:
        how = f" (ZE_FLAT_DEVICE_HIERARCHY: {answer.hierarchy})" if answer.hierarchy else ""
        faults.append(f"{len(answer.devices)} devices of {answer.kind}, {number} expected{how}")
    for device in answer.devices:
        for what, there, median, unit in (
            ("memory", device.memory_gib, most.memory_gib, "GiB"),
            ("rate", device.gflops, most.gflops, "GFLOP/s"),
        ):
            if not device.fault and there < wanted.share * median:
                faults.append(f"{device.name}: {what} {there:g} {unit}, most have {median:g}")
    return faults


def skew(found: Found) -> float:
    """Seconds by which a node's clock is wrong at least: what it did between question and answer it cannot have done outside."""
    answer = found.answer
    return max(0.0, found.asked - answer.started, answer.told - found.heard) if answer else 0.0


def _most(values):
    return Counter(values).most_common(1)[0][0]
