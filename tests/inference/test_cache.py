"""Caches with room: the same as those that grow by concatenation, whatever is appended, dropped or repeated."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import DynamicCache, DynamicLayer

from apps.inference.cache import BLOCK, Room, closed_up, roomy

HEADS, WIDTH = 2, 3


def states(rows: int, length: int, seed: int):
    made = torch.randn(2, rows, HEADS, length, WIDTH, generator=torch.Generator().manual_seed(seed))
    return made[0], made[1]


def filled(rows: int, length: int) -> DynamicLayer:
    layer = DynamicLayer()
    layer.update(*states(rows, length, 0))
    return layer


def agree(room: Room, plain: DynamicLayer) -> bool:
    same = torch.equal(room.keys, plain.keys) and torch.equal(room.values, plain.values)
    return same and room.get_seq_length() == plain.get_seq_length()


EVENTS = st.lists(
    st.one_of(st.integers(1, 2 * BLOCK), st.lists(st.integers(0, 99), min_size=1, max_size=9)), max_size=8
)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.lists(st.integers(0, 99), min_size=1, max_size=9), EVENTS)
def test_a_room_holds_what_concatenation_would(rows, first, events):
    """An event is so many tokens appended, or rows selected: fewer, more, in any order."""
    plain = filled(rows, 7)
    chosen = torch.tensor([i % rows for i in first])
    room = Room(plain.keys, plain.values, chosen)
    plain.batch_select_indices(chosen)
    for number, event in enumerate(events):
        if isinstance(event, int):
            new = states(len(plain.keys), event, number)
            got, wanted = room.update(*new), plain.update(*new)
            assert torch.equal(got[0], wanted[0]) and torch.equal(got[1], wanted[1])
        else:
            kept = torch.tensor([i % len(plain.keys) for i in event])
            room.reorder_cache(kept)
            plain.batch_select_indices(kept)
        assert agree(room, plain)


def test_what_is_appended_is_written_where_it_stays():
    """Else every token would copy all before it."""
    room = Room(*states(4, 5, 0), torch.arange(4))
    place = room.keys.data_ptr()
    for step in range(BLOCK):
        room.update(*states(4, 1, step))
    assert room.keys.data_ptr() == place and room.keys.shape[2] == 5 + BLOCK
    room.reorder_cache(torch.tensor([0, 3, 2]))
    assert room.keys.data_ptr() == place and len(room.keys) == 3


def test_a_room_shares_nothing_with_what_it_was_made_of():
    keys, values = states(2, 3, 0)
    before = keys.clone()
    room = Room(keys, values, torch.tensor([0, 1]))
    room.keys.zero_()
    assert torch.equal(keys, before)


@given(st.sets(st.integers(0, 30)))
def test_rows_close_up_with_as_few_moves_as_can_be(going):
    order = closed_up(sorted(going))
    assert sorted(order) == sorted(going)
    assert sum(row != place for place, row in enumerate(order)) == sum(row >= len(going) for row in going)


def test_rows_close_up_from_the_end():
    assert closed_up([0, 2, 4, 5]) == [0, 5, 2, 4]


def test_only_plain_attention_layers_get_room():
    from transformers import MistralConfig

    config = MistralConfig(num_hidden_layers=1, sliding_window=4)
    sliding, plain = DynamicCache(config=config), DynamicCache()
    for cache in (sliding, plain):
        cache.update(*states(2, 6, 0), 0)
        kept = roomy(cache, torch.tensor([1, 1, 0]))
        assert kept.layers[0].keys.shape[0] == 3
        assert torch.equal(kept.layers[0].keys[0], kept.layers[0].keys[1])
    assert isinstance(plain.layers[0], Room) and not isinstance(sliding.layers[0], Room)


@pytest.mark.parametrize("capacity", [1, BLOCK, 5 * BLOCK])
def test_a_room_grows_past_its_block(capacity):
    room, plain = Room(*states(2, 4, 0), torch.arange(2)), filled(2, 4)
    new = states(2, capacity, 1)
    room.update(*new)
    plain.update(*new)
    assert agree(room, plain)
