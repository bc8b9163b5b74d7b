"""A node's accelerators and cores, shared out to workers: the names of tiles, and groups of them."""

from __future__ import annotations

from collections.abc import Sequence


def names(hierarchy: str, tiles: int, of_a_device: int = 2) -> list[str]:
    """What ZE_AFFINITY_MASK calls a node's tiles.

    Under FLAT each tile is a device with a number, and a mask `g.t` matches none; under COMPOSITE a number is a whole device.
    """
    if hierarchy == "FLAT":
        return [str(tile) for tile in range(tiles)]
    return [f"{tile // of_a_device}.{tile % of_a_device}" for tile in range(tiles)]


def groups(items: Sequence[str], size: int) -> tuple[str, ...]:
    """Neighbours, so many together, joined by commas. What is left over belongs to none."""
    return tuple(",".join(items[first : first + size]) for first in range(0, len(items) - size + 1, size))
