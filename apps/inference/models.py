"""An engine for each model, where agents have models of their own: base models that differ, or policies that are whole models.

A request goes to the engine of its policy's model. Tokenizers and chat templates differ with models, so prompts are
rendered by whoever is to read them: text crosses between agents, ids do not. The models that were last used stay in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from apps.inference.engine import Completion, Engine, Request
from apps.records import Policy

Pair = tuple[np.ndarray, np.ndarray]  # prompt ids, completion ids


class Models:
    """Engines by the folders of their models; `home` is that of policies which name none. Itself an engine."""

    def __init__(self, open_engine: Callable[[str], Engine], home: str, keep: int = 1) -> None:
        self._open, self.home, self.keep = open_engine, home, keep
        self.loaded: dict[str, Engine] = {}  # the last used at the end

    def engine(self, model: str) -> Engine:
        """The engine of a model; "" is home. One that was not used for longest goes before a new one comes."""
        place = model or self.home
        found = self.loaded.pop(place, None)
        if found is None:
            while len(self.loaded) >= self.keep:
                del self.loaded[next(iter(self.loaded))]
            found = self._open(place)
        self.loaded[place] = found
        return found

    def render(self, system: str, user: str, policy: Policy | None = None) -> tuple[str, np.ndarray]:
        """A prompt through the chat template of the policy's model."""
        return self.engine(policy.model if policy else "").render(system, user)

    def completion(self, text: str, policy: Policy | None = None) -> np.ndarray:
        """A text as a whole completion, in the tokens of the policy's model."""
        return self.engine(policy.model if policy else "").completion(text)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Those of one model together, models in the order in which they are first asked for."""
        found: list[Completion | None] = [None] * len(requests)
        for model in dict.fromkeys(request.policy.model for request in requests):
            mine = [i for i, request in enumerate(requests) if request.policy.model == model]
            for i, said in zip(mine, self.engine(model).generate([requests[i] for i in mine]), strict=True):
                found[i] = said
        return found

    def score(self, policy: Policy, sequences: Sequence[Pair]) -> list[np.ndarray]:
        return self.engine(policy.model).score(policy, sequences)

    def encode(self, text: str) -> np.ndarray:
        return self.engine("").encode(text)

    def joined(self, pieces: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        return self.engine("").joined(pieces)

    def reward(self, policy: Policy, sequences: Sequence[Pair]) -> list[np.ndarray]:
        return self.engine(policy.model).reward(policy, sequences)
