"""Any local Hugging Face causal language model, with a LoRA adapter a role: one base model, one batch for all roles.

A plain decoding loop: equal prompts are read once, rows of all roles go on together, each with its own adapter, and
finished rows leave the batch. Weights are read from safetensors only; nothing is unpickled from a model folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from apps import records, weights
from apps.inference import chat, four_bit, sampler, scalar_head
from apps.inference.engine import Completion, Request
from apps.inference.lora import Adapters
from apps.records import MeritError, Policy, Sampling

RENDERED = 20_000  # prompts kept
Pair = tuple[np.ndarray, np.ndarray]  # ids of a prompt, of a completion


class Options(records.Options):
    """How the model is held and batched."""

    dtype: Literal["float32", "bfloat16", "auto"] = Field(
        "float32", description="of the weights; auto = bfloat16 where the device multiplies it faster"
    )
    rows: int = Field(256, ge=1, description="completions at once")
    adapters: int = Field(16, ge=1, description="adapters kept in memory")
    merge_gib: float = Field(
        1.0,
        ge=0,
        description="GiB for a second copy of weights, with the adapter of a batch's only policy added; float32",
    )
    quantise: Literal["nf4"] | None = Field(
        None, description="the weights in 4 bits (arXiv 2305.14314), as training.lora.quantise=nf4 trains over them"
    )
    models: int = Field(
        4,
        ge=1,
        description="whole models kept in memory, where agents have models of their own; fewer: read again and again",
    )


def load(model: str, options: Options, device: str) -> Transformers:
    return Transformers(model, options, device)


class Transformers:
    """One model in memory; see `apps.inference.engine.Engine`."""

    def __init__(self, model: str, options: Options, device: str) -> None:
        import torch

        self.options, self.device, self.torch, self.folder = options, device, torch, model
        self.dtype = "bfloat16" if options.quantise else options.dtype  # 4-bit kernels round as coarsely
        self.tokenizer, self.model = open_model(model, options, device)
        self.adapters = Adapters(self.model, options.adapters, options.merge_gib)
        self._heads: dict[str, tuple] = {}  # scalar heads, by folder
        self._rendered: dict[tuple[str, str], tuple[str, np.ndarray]] = {}
        self.ends = _end_ids(self.model, self.tokenizer)
        self.context = getattr(self.model.config, "max_position_embeddings", None) or float("inf")  # tokens
        self.pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else min(self.ends)

    def render(self, system: str, user: str) -> tuple[str, np.ndarray]:
        """Kept for a while, since the replays of a group ask for the same prompts again and again."""
        if (system, user) not in self._rendered:
            if len(self._rendered) > RENDERED:
                self._rendered.clear()
            self._rendered[system, user] = self._render(system, user)
        return self._rendered[system, user]

    def _render(self, system: str, user: str) -> tuple[str, np.ndarray]:
        text = chat.rendered(self.tokenizer, system, user)
        return text, self.encode(text)

    def encode(self, text: str) -> np.ndarray:
        """Token ids int32 of a text that holds its special tokens already."""
        return chat.encoded(self.tokenizer, text)

    def completion(self, text: str) -> np.ndarray:
        return chat.closed(self.tokenizer, text)

    def joined(self, pieces: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        return chat.joined(self.tokenizer, pieces)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        for request in requests:
            if len(request.prompt_ids) >= self.context:
                raise MeritError(
                    f"a prompt of {len(request.prompt_ids)} tokens leaves no room in the model's context of {self.context} "
                    f"({request.ask.role}, task {request.task.id}); use a shorter prompt or another model"
                )
        completions: list[Completion | None] = [None] * len(requests)
        with self.torch.inference_mode():
            for batch in _batches(requests, self.options.rows):
                for i, completion in zip(batch, self._decode([requests[i] for i in batch]), strict=True):
                    completions[i] = completion
        return completions

    def score(self, policy: Policy, sequences: Sequence[Pair]) -> list[np.ndarray]:
        return self._by_length(sequences, lambda part: self._score(policy, part))

    def reward(self, policy: Policy, sequences: Sequence[Pair]) -> list[np.ndarray]:
        folder = policy.adapter or self.folder
        if folder not in self._heads:
            self._heads[folder] = scalar_head.read(
                Path(folder), self.model.config.get_text_config().hidden_size, self.device
            )
        return self._by_length(sequences, lambda part: self._reward(policy, self._heads[folder], part))

    def _by_length(self, sequences: Sequence[Pair], read: Callable[[list[Pair]], Iterator[np.ndarray]]):
        """`read` on parts of the sequences, those of like length together; its results in their order."""
        scores: list[np.ndarray] = [np.zeros(0, np.float32)] * len(sequences)
        order = sorted(range(len(sequences)), key=lambda i: sum(map(len, sequences[i])))
        with self.torch.inference_mode():
            for start in range(0, len(order), self.options.rows):
                part = order[start : start + self.options.rows]
                for i, row in zip(part, read([sequences[i] for i in part]), strict=True):
                    scores[i] = row
        return scores

    def _reward(self, policy: Policy, head, sequences: Sequence[Pair]) -> Iterator[np.ndarray]:
        self._use([policy] * len(sequences))
        ids, mask = self._pad([np.concatenate(pair) for pair in sequences])
        read = self.model.base_model(ids, attention_mask=mask, position_ids=_positions(mask), use_cache=False)
        scores = scalar_head.apply(read.last_hidden_state, head).cpu().numpy()
        for row, (_, completion) in zip(scores, sequences, strict=True):
            yield row[len(row) - len(completion) :]

    def _score(self, policy: Policy, sequences: Sequence[Pair]) -> Iterator[np.ndarray]:
        """Logits are made at the completions alone: those of the prompts would fill the memory."""
        self._use([policy] * len(sequences))
        ids, mask = self._pad([np.concatenate(pair) for pair in sequences])
        width = min(max(len(completion) for _, completion in sequences), ids.shape[1] - 1)
        out = self.model(
            ids, attention_mask=mask, position_ids=_positions(mask), use_cache=False, logits_to_keep=width + 1
        )
        targets = ids[:, ids.shape[1] - width :, None]
        logprobs = out.logits[:, :-1].float().log_softmax(-1).gather(-1, targets)[..., 0].cpu().numpy()
        for row, (_, completion) in zip(logprobs, sequences, strict=True):
            yield row[max(0, width - len(completion)) :]

    def _decode(self, requests: Sequence[Request]) -> list[Completion]:
        """All completions of one batch, whose requests share their sampling."""
        from apps.inference.cache import closed_up, keep_rows

        torch, sampling = self.torch, requests[0].sampling
        logits, cache, mask = self._read(requests)
        uniform = np.stack([sampler.uniforms(r.seed, sampling.max_new_tokens) for r in requests])
        uniform = torch.from_numpy(uniform).to(logits.device)
        room = [self.context - len(r.prompt_ids) for r in requests]
        alive = list(range(len(requests)))  # the request of each row that is still in the batch
        ids: list[list[int]] = [[] for _ in requests]
        logprobs: list[list[float]] = [[] for _ in requests]
        kept_ids: list[list[np.ndarray]] = [[] for _ in requests]  # what each token was drawn from, where that was cut
        for step in range(sampling.max_new_tokens):
            chosen, logprob = sampler.draw(logits, uniform[alive, step], sampling)
            if left := sampler.survivors(logits, sampling):
                for i, ids_left in zip(alive, left, strict=True):
                    kept_ids[i].append(ids_left)
            chosen_list = chosen.tolist()
            for i, token, value in zip(alive, chosen_list, logprob.tolist(), strict=True):
                ids[i].append(token)
                logprobs[i].append(value)
            going = [
                row for row, token in enumerate(chosen_list) if token not in self.ends and room[alive[row]] > step + 1
            ]
            if not going or step + 1 == sampling.max_new_tokens:
                break
            if len(going) < len(alive):
                order = closed_up(going)
                kept = torch.tensor(order, device=logits.device)
                keep_rows(cache, kept)
                self.adapters.keep_rows(kept)
                chosen, mask, alive = chosen[kept], mask[kept], [alive[row] for row in order]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            positions = mask.sum(1, keepdim=True) - 1
            logits = self.model(
                chosen[:, None], attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
            ).logits[:, -1]
        return [self._completion(*said) for said in zip(ids, logprobs, kept_ids, strict=True)]

    def _read(self, requests: Sequence[Request]):
        """Reads the prompts, equal ones of one policy once: the next token's logits, the cache, the attention mask."""
        from apps.inference.cache import roomy

        keys = [(r.policy.digest, r.prompt_ids.tobytes()) for r in requests]
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        order = {key: row for row, key in enumerate(first)}
        self._use([requests[i].policy for i in first.values()])
        ids, mask = self._pad([requests[i].prompt_ids for i in first.values()])
        out = self.model(ids, attention_mask=mask, position_ids=_positions(mask), use_cache=True, logits_to_keep=1)
        rows = self.torch.tensor([order[key] for key in keys], device=ids.device)
        self.adapters.keep_rows(rows)
        return out.logits[rows, -1], roomy(out.past_key_values, rows), mask[rows]

    def _use(self, policies: Sequence[Policy]) -> None:
        for policy in {p.digest: p for p in policies if p.adapter}.values():
            self.adapters.load(policy.digest, Path(policy.adapter))
        self.adapters.choose([policy.digest if policy.adapter else "base" for policy in policies])

    def _pad(self, sequences: Sequence[np.ndarray]):
        """Ids and mask (B, T), padded on the left."""
        width = max(len(s) for s in sequences)
        if width > self.context:
            raise MeritError(f"a sequence of {width} tokens is longer than the model's context of {self.context}")
        ids = np.full((len(sequences), width), self.pad, np.int64)
        mask = np.zeros((len(sequences), width), np.int64)
        for row, sequence in enumerate(sequences):
            ids[row, width - len(sequence) :], mask[row, width - len(sequence) :] = sequence, 1
        return self.torch.from_numpy(ids).to(self.device), self.torch.from_numpy(mask).to(self.device)

    def _completion(self, ids: list[int], logprobs: list[float], left: list[np.ndarray]) -> Completion:
        text = self.tokenizer.decode(ids, skip_special_tokens=True).strip()
        finish = "stop" if ids[-1] in self.ends else "length"
        kept = sampler.table(left) if left else None
        return Completion(text, np.asarray(ids, np.int32), np.asarray(logprobs, np.float32), finish, kept)


def open_model(path: str, options: Options, device: str):
    """The tokenizer and the model of a local folder, in eval mode. A fault of the folder is named, not traced."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # a run's own display says what goes on
    folder = Path(path)
    weights.check_model(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, options.dtype),
            use_safetensors=True,
            local_files_only=True,
            attn_implementation="sdpa",
            **(four_bit.loading(options.dtype, device) if options.quantise else {}),
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise MeritError(f"model={path}: cannot be read as a model: {error}") from error
    if tokenizer.chat_template is None:
        raise MeritError(f"model={path}: its tokenizer has no chat template; Merit prompts through it")
    chat.check(tokenizer, f"model={path}")
    return tokenizer, model.to(device).eval()


def _batches(requests: Sequence[Request], rows: int) -> Iterator[list[int]]:
    """Indices of requests that share their sampling, by policy and length of prompt, at most `rows` at once."""
    samplings: dict[Sampling, list[int]] = {}
    for i, request in enumerate(requests):
        samplings.setdefault(request.sampling, []).append(i)
    for members in samplings.values():
        members.sort(key=lambda i: (requests[i].policy.digest, len(requests[i].prompt_ids)))
        yield from (members[start : start + rows] for start in range(0, len(members), rows))


def _positions(mask):
    return (mask.cumsum(-1) - 1).clamp(min=0)


def _end_ids(model, tokenizer) -> set[int]:
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    found = {i for i in [*ends, tokenizer.eos_token_id] if i is not None}
    if not found:
        raise MeritError("the model has no end-of-sequence token, so no completion could end")
    return found
