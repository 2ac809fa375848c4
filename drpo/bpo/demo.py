"""The preferences of the simulated world, for trying BPO without any data."""

from __future__ import annotations

from drpo.bpo.pairs import Preference, Preferences
from drpo.config_common import RunConfig
from drpo.data import read_queries, shipped_rewriting


def demo_preferences(config: RunConfig, count: int) -> Preferences:
    """`count` preferences over the shipped queries that want rewriting, the same ones in the same world."""
    from drpo.llm.world.pairs import preference_pairs
    from drpo.llm.world.settings import World

    queries = read_queries(shipped_rewriting()).queries
    world = World(config.demo_seed, config.demo_noise)
    pairs = preference_pairs(world, [query.text for query in queries], count)
    items = tuple(
        Preference(pair.prompt, pair.good, pair.bad, pair.context, f"pair {number}")
        for number, pair in enumerate(pairs, 1)
    )
    return Preferences(items, "the simulated world", {})
