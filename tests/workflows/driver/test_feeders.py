"""Which training will soon be ready, told by the plays that are left before it."""

from __future__ import annotations

from apps import stages
from workflows.driver.feeders import Feeders
from workflows.plan import Node


def test_training_is_soon_ready_when_few_plays_are_left_before_it():
    """Two rounds of three plays and two agents, and a test at the end that nobody waits for."""
    words = ["play"] * 3 + ["train"] * 2 + ["play"] * 3 + ["train"] * 2 + ["play"]
    kinds = {"play": stages.ROLLOUT, "train": stages.TRAIN}
    plan = [Node(kinds[word], f"{word}{i}", {}, {}, 0, number=i) for i, word in enumerate(words)]
    feeders = Feeders(reversed(plan), lambda node: node.stage == stages.TRAIN)
    assert feeders.soon(2) == set() and feeders.soon(3) == {"train3", "train4"}
    assert feeders.soon(6) == {"train3", "train4", "train8", "train9"}
    for play in ("play0", "play6", "play2", "play0"):
        feeders.ended(play)
    assert feeders.soon(0) == set() and feeders.soon(1) == {"train3", "train4"}
    for key in ("train3", "play1", "report"):
        feeders.ended(key)
    assert feeders.soon(0) == {"train4"} and feeders.soon(2) == {"train4", "train8", "train9"}
    feeders.ended("train4")
    assert feeders.soon(0) == set() and feeders.soon(2) == {"train8", "train9"}
