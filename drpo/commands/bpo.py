"""drpo bpo: a group, whose commands are loaded when they are called."""

from __future__ import annotations

from drpo.commands.group import lazy_group

command = lazy_group(
    "bpo",
    "Black-Box Prompt Optimization (arXiv 2311.04155): preferences to pairs of prompts, pairs to a rewriter.",
    {
        "build": "Make pairs of prompts from human preferences.",
        "train": "Train a rewriter on such pairs (extra drpo[train]).",
    },
)
