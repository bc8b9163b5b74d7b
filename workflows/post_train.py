"""Post-training of a team: play, judge, find out who earned it, train each agent on its share; round after round."""

from __future__ import annotations

from workflows.config import PostTrain as Config
from workflows.plan import Node, Plan
from workflows.steps import Steps

__all__ = ["Config", "dag"]


def dag(config: Config, plan: Plan) -> dict[str, Node]:
    """Adds the whole run to `plan`; returns the nodes that the run's folder is made from."""
    steps = Steps(config, plan)
    training, validation, test = (steps.tasks(split) for split in ("train", "validation", "test"))
    team = untrained = steps.untrained()
    before = {"greedy": steps.test(test, team, greedy=True), "sampled": steps.test(test, team, greedy=False)}
    shown = steps.show(test, team)
    scores = steps.validate(validation, team)
    history: dict[str, list[Node]] = {name: [] for name in ("rollout", "grade", "replay", "assign", "batch", "train")}
    curve, decisions = [scores], []

    for number in range(config.rounds):
        plan.round = number + 1
        played, judged = steps.rollout(training, team)
        replays = steps.replay(training, team, played, judged)
        credit = steps.assign(training, played, judged, replays)
        for name, nodes in (("rollout", played), ("grade", judged), ("replay", replays), ("assign", credit)):
            history[name] += [node for node in nodes if node]
        if not steps.trains:
            continue
        trained = steps.train(team, played, judged, credit)
        trials = steps.trials(trained)
        for adapters in trials:
            candidate = steps.gather(team, adapters)
            candidate_scores = steps.validate(validation, candidate)
            team = scores = steps.promote(team, scores, candidate, candidate_scores)
            decisions.append(team)
        curve.append(candidate_scores if len(trials) == 1 else scores)  # tried one by one: the team that they left
        history["batch"] += trained[0].inputs["batch"]
        history["train"] += trained

    plan.round = 0
    after = {"greedy": steps.test(test, team, greedy=True), "sampled": steps.test(test, team, greedy=False)}
    shown_after = steps.show(test, team)
    report = steps.report(
        tasks=test,
        before_greedy=before["greedy"],
        before_sampled=before["sampled"],
        after_greedy=after["greedy"],
        after_sampled=after["sampled"],
        show_before=shown,
        show_after=shown_after,
        validation=curve,
        promote=decisions,
        **history,
        everything=list(steps.nodes.values()),
    )
    return {"report": report, "team": team, "untrained": untrained}
