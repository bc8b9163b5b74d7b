"""Traces in HDF5: one writer a file, renamed when complete, read as a stream.

Ragged data (token ids, log-probabilities) are flat arrays with offsets, chunked and compressed; HDF5's own
variable-length types escape compression. A turn that several traces share (the leaves of a tree) is stored once.
Prompts repeat, so their texts and ids are stored once too.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from apps.records import MeritError, Sampling, Trace, Turn

FORMAT = 1
FILE = "traces.h5"
COMPRESSION = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
FACTS = ("agent", "path", "policy", "finish", "stand_in")  # short texts of a turn, few of them different


def write(path: Path, traces: Sequence[Trace]) -> None:
    """Writes the traces to `path`, aside first."""
    import h5py

    turns = list({id(turn): turn for trace in traces for turn in trace.turns}.values())
    number = {id(turn): i for i, turn in enumerate(turns)}
    # by text too: words that a tokenizer does not know have the same id
    prompts = {(turn.state, turn.prompt): turn for turn in turns}
    prompt_number = {seen: i for i, seen in enumerate(prompts)}
    aside = path.with_name(path.name + ".part")
    with h5py.File(aside, "w") as file:
        file.attrs["format"] = FORMAT
        _ragged(file, "prompts/ids", [t.prompt_ids for t in prompts.values()], np.int32)
        _texts(file, "prompts/text", [t.prompt for t in prompts.values()])
        _flat(file, "turns/prompt", np.array([prompt_number[t.state, t.prompt] for t in turns], np.int32))
        _ragged(file, "turns/ids", [t.completion_ids for t in turns], np.int32)
        _ragged(file, "turns/logprobs", [t.logprobs for t in turns], np.float32)
        if any(t.kept is not None for t in turns):
            kept = [np.zeros((0, 0), np.int32) if t.kept is None else t.kept for t in turns]
            _ragged(file, "turns/kept", [ids.ravel() for ids in kept], np.int32)
            _flat(file, "turns/kept/width", np.array([ids.shape[1] for ids in kept], np.int32))
        _flat(file, "turns/seed", np.array([t.seed for t in turns], np.uint64))
        _texts(file, "turns/text", [t.text for t in turns])
        for fact in FACTS:
            _named(file, f"turns/{fact}", [getattr(t, fact) for t in turns])
        _named(file, "turns/sampling", [json.dumps(dataclasses.asdict(t.sampling)) for t in turns])
        _ragged(file, "traces/turns", [[number[id(t)] for t in trace.turns] for trace in traces], np.int32)
        _flat(file, "traces/converged", np.array([t.converged for t in traces], bool))
        for fact in ("task", "sample", "answer"):
            _texts(file, f"traces/{fact}", [getattr(t, fact) for t in traces])
    os.replace(aside, path)


def read(path: Path) -> list[Trace]:
    """All traces of a file, in the order they were written."""
    return list(stream([path]))


def stream(paths: Iterable[Path], at_once: int = 512) -> Iterator[Trace]:
    """The traces of many files, `at_once` traces in memory at a time. Turns shared between them stay shared."""
    import h5py

    for path in paths:
        try:
            with h5py.File(path, "r") as file:
                if file.attrs.get("format") != FORMAT:
                    raise MeritError(f"{path} has trace format {file.attrs.get('format')}, this Merit reads {FORMAT}")
                turns: dict[int, Turn] = {}  # of the chunk before: its last traces may share turns with the next ones
                for start in range(0, len(file["traces/converged"]), at_once):
                    turns, chunk = _chunk(file, start, start + at_once, turns)
                    yield from chunk
        except (OSError, KeyError) as error:
            raise MeritError(f"{path} is no readable trace file: {error}") from error


def _chunk(file, start: int, stop: int, known: dict[int, Turn]) -> tuple[dict[int, Turn], list[Trace]]:
    """Some traces, with their turns by number; turns that are `known` are not read again."""
    members = _read_ragged(file["traces/turns"], start, stop)
    wanted = sorted({int(i) for row in members for i in row})
    new = [number for number in wanted if number not in known]
    turns = {number: known[number] for number in wanted if number in known}
    turns |= zip(new, _read_turns(file, new), strict=True) if new else ()
    tasks, samples, answers = (
        _read_texts(file[f"traces/{fact}"], start, stop) for fact in ("task", "sample", "answer")
    )
    return turns, [
        Trace(tasks[i], samples[i], tuple(turns[int(k)] for k in members[i]), answers[i], bool(converged))
        for i, converged in enumerate(file["traces/converged"][start:stop])
    ]


def _read_turns(file, wanted: list[int]) -> Iterator[Turn]:
    first, last = wanted[0], wanted[-1] + 1
    prompt = file["turns/prompt"][first:last]
    low, high = int(prompt.min()), int(prompt.max()) + 1
    prompt_ids = _read_ragged(file["prompts/ids"], low, high)
    prompt_text = _read_texts(file["prompts/text"], low, high)
    ids = _read_ragged(file["turns/ids"], first, last)
    logprobs = _read_ragged(file["turns/logprobs"], first, last)
    seeds = file["turns/seed"][first:last]
    texts = _read_texts(file["turns/text"], first, last)
    facts = {fact: _read_named(file[f"turns/{fact}"], first, last) for fact in FACTS}
    samplings = _read_named(file["turns/sampling"], first, last)
    known = {text: Sampling(**json.loads(text)) for text in set(samplings)}
    kept = _read_kept(file, first, last)
    for k in wanted:
        i, p = k - first, int(prompt[k - first]) - low
        yield Turn(
            prompt=prompt_text[p],
            text=texts[i],
            prompt_ids=prompt_ids[p],
            completion_ids=ids[i],
            logprobs=logprobs[i],
            sampling=known[samplings[i]],
            seed=int(seeds[i]),
            kept=kept[i],
            **{fact: values[i] for fact, values in facts.items()},
        )


def _read_kept(file, first: int, last: int) -> list[np.ndarray | None]:
    """What each token of each turn was drawn from; None for a turn whose draws were not cut."""
    if "turns/kept" not in file:
        return [None] * (last - first)
    flat, widths = _read_ragged(file["turns/kept"], first, last), file["turns/kept/width"][first:last]
    return [ids.reshape(-1, width) if width else None for ids, width in zip(flat, widths, strict=True)]


def _flat(group, name: str, values: np.ndarray) -> None:
    group.create_dataset(
        name, data=values, chunks=True if len(values) else None, **(COMPRESSION if len(values) else {})
    )


def _ragged(group, name: str, rows: Sequence, dtype: type) -> None:
    """Rows end to end, with the offset at which each begins: row i = values[offsets[i] : offsets[i + 1]]."""
    _flat(group, f"{name}/offsets", np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64))
    _flat(group, f"{name}/values", np.concatenate([np.asarray(row, dtype) for row in rows] or [np.zeros(0, dtype)]))


def _read_ragged(group, start: int, stop: int) -> list[np.ndarray]:
    offsets = group["offsets"][start : stop + 1]
    values = group["values"][offsets[0] : offsets[-1]]
    return [values[a - offsets[0] : b - offsets[0]] for a, b in zip(offsets[:-1], offsets[1:], strict=True)]


def _texts(group, name: str, texts: Sequence[str]) -> None:
    _ragged(group, name, [np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8) for text in texts], np.uint8)


def _read_texts(group, start: int, stop: int) -> list[str]:
    return [row.tobytes().decode("utf-8", "surrogatepass") for row in _read_ragged(group, start, stop)]


def _named(group, name: str, texts: Sequence[str]) -> None:
    """Texts of which few are different: a list of names, and a number for each text."""
    names = list(dict.fromkeys(texts))
    number = {text: i for i, text in enumerate(names)}
    _texts(group, f"{name}/names", names)
    _flat(group, f"{name}/number", np.array([number[text] for text in texts], np.int32))


def _read_named(group, start: int, stop: int) -> list[str]:
    names = _read_texts(group["names"], 0, len(group["names/offsets"]) - 1)
    return [names[i] for i in group["number"][start:stop]]
