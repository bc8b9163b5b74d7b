"""Post-training of a team: play, judge, find out who earned it, train each agent on its share; round after round."""

from __future__ import annotations

from dataclasses import replace

from workflows import casting, chain, value_models
from workflows.chain import Standing, Story
from workflows.config import PostTrain as Config
from workflows.plan import Node, Plan
from workflows.steps import Steps

__all__ = ["Config", "dag"]


def dag(config: Config, plan: Plan) -> dict[str, Node]:
    """Adds the whole run to `plan`, stage by stage; returns the nodes that the run's folder is made from."""
    steps = Steps(config, plan)
    untrained = steps.untrained()
    standing = Standing(untrained, steps.validate(untrained))
    story = Story([standing.scores])
    for link in chain.links(config):
        standing = link.add(steps, standing, story)
    plan.round = 0
    trained = steps.onward(standing)
    shown_after, after = trained.show(standing.team), trained.tests(standing.team)
    # last in the plan: nobody waits for them, so they go where workers have nothing else to do
    shown, before = steps.show(untrained), steps.tests(untrained)
    report = trained.report(story, before, after, shown, shown_after)
    found = {"report": report, "team": standing.team, "untrained": untrained, "model": standing.base}
    found["scores"] = standing.scores
    return {name: node for name, node in found.items() if node}


def stage(config: Config, steps: Steps, standing: Standing, story: Story) -> Standing:
    """Adds the rounds of one stage, numbered on from those of the last."""
    training, team, scores, values = steps.tasks("train"), standing.team, standing.scores, value_models.untrained(steps)
    teams = [team]  # as the stage found it, then as each round left it
    for number in range(1, config.rounds + 1):
        steps.plan.round += 1
        lineup = casting.lineup(steps, number)
        known = teams[: max(1, len(teams) - config.rollout.overlap)]  # the last may still be in training
        played, judged = steps.rollout(training, casting.casts(steps, known, lineup))
        taught, graded = steps.rationalise(training, played, judged)
        replays = steps.replay(training, taught, graded)
        credit = steps.assign(training, taught, graded, replays)
        first = slice(len(played))  # second tries are taught, and not told
        story.tell(rollout=played, grade=judged, replay=replays[first], assign=credit[first])
        if not steps.trains:
            continue
        origin = steps.untrained() if config.restart else team
        foreseen = value_models.foresee(steps, values, taught)
        trained = steps.train(known[-1], origin, taught, graded, credit, lineup.trains, foreseen)
        values = value_models.learn(steps, values, trained)
        team, scores = tried(steps, story, team, scores, trained)
        teams.append(team)
    return replace(standing, team=team, scores=scores)


def tried(steps: Steps, story: Story, team: Node, scores: Node, trained: list[Node]) -> tuple[Node, Node]:
    """The team with those of a round's new weights that are let in, and its scores."""
    trials = steps.trials(trained)
    for weights in trials:
        candidate = steps.gather(team, weights)
        candidate_scores = steps.validate(candidate)
        team = scores = steps.promote(team, scores, candidate, candidate_scores)
        story.decisions.append(team)
    # tried one by one, they have no scores together: those of the team that they left
    story.curve.append(candidate_scores if len(trials) == 1 else scores)
    story.tell(batch=trained[0].inputs["batch"], train=trained)
    return team, scores
