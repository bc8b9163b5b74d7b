"""Who is trained in which round: by hand, and by laws that hold for every schedule of the folder."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps import leaf
from apps.records import MeritError
from apps.training.schedules import alternating, best_response, pool, simultaneous

TEAM = ("solver", "critic", "reviser")
SCHEDULES = leaf.names("training/schedules")


def trained(module, count: int, agents=TEAM, **options) -> list[tuple[str, ...]]:
    return [module.lineup(n, agents, 4, 0, module.Options(**options)).trains for n in range(1, count + 1)]


def test_by_hand():
    assert trained(simultaneous, 2) == [TEAM, TEAM] == trained(pool, 2)
    assert trained(alternating, 4) == [("solver",), ("critic",), ("reviser",), ("solver",)]
    twice = [("solver",), ("solver",), ("critic",), ("critic",), ("reviser",), ("reviser",), ("solver",)]
    assert trained(best_response, 7) == twice
    assert trained(best_response, 4, rounds=1) == trained(alternating, 4)


@pytest.mark.parametrize("name", SCHEDULES)
@given(number=st.integers(1, 40), agents=st.integers(1, 6), shards=st.integers(2, 9), seed=st.integers(0, 2**63 - 1))
def test_laws(name, number, agents, shards, seed):
    """Some agent is trained, in the topology's order; guests come from the past; what is said depends on what is given alone."""
    module, team = leaf.find("training/schedules", name), [f"agent{i}" for i in range(agents)]
    said = module.lineup(number, team, shards, seed, module.Options())
    assert said.trains and list(said.trains) == [agent for agent in team if agent in said.trains]
    assert len(said.guests) in (0, shards)
    for shard in range(shards):
        guests = said.guests_of(shard)
        assert set(guests) <= set(team) and set(guests) != set(team), "nobody would learn from this shard"
        assert all(0 <= of < number - 1 for of in guests.values()), "a team of the future, or that of today"
    assert said == module.lineup(number, team, shards, seed, module.Options())


@pytest.mark.parametrize("name", SCHEDULES)
@given(agents=st.integers(1, 6), seed=st.integers(0, 99))
def test_nobody_is_forgotten(name, agents, seed):
    module, team = leaf.find("training/schedules", name), [f"agent{i}" for i in range(agents)]
    said = [module.lineup(n, team, 2, seed, module.Options()) for n in range(1, 2 * agents + 1)]
    assert {agent for one in said for agent in one.trains} == set(team)


def test_the_pool_s_shards_have_one_learner_each_and_learners_take_turns():
    said = [pool.lineup(n, TEAM, 4, 7, pool.Options(share=0.5)) for n in range(1, 8)]
    assert said[0].guests == ()  # no past yet
    for one in said[1:]:
        assert one.guests_of(0) == one.guests_of(1) == {}
        assert all(len(one.guests_of(shard)) == 2 and len(set(one.guests_of(shard).values())) == 1 for shard in (2, 3))
    learners = [next(a for a in TEAM if a not in one.guests_of(shard)) for one in said[1:] for shard in (2, 3)]
    assert learners == [*TEAM] * 4


def test_the_pool_draws_alike_from_its_window():
    drawn = [set(pool.lineup(9, TEAM, 1, s, pool.Options(share=1)).guests_of(0).values()) for s in range(400)]
    counts = [sum(one == {past} for one in drawn) for past in range(8)]
    assert sum(counts) == 400 and min(counts) > 25  # 50 each on average, standard deviation 6.6
    narrow = [pool.lineup(9, TEAM, 1, s, pool.Options(share=1, window=2)).guests_of(0) for s in range(50)]
    assert {past for one in narrow for past in one.values()} == {6, 7}


def test_a_share_of_no_shard_is_told():
    with pytest.raises(MeritError, match=r"schedule.share=0.3 of rollout.shards=2 is not one shard; .* 4 or more"):
        pool.lineup(1, TEAM, 2, 0, pool.Options(share=0.3))
    assert pool.lineup(2, TEAM, 4, 0, pool.Options(share=0.25)).guests_of(3)
