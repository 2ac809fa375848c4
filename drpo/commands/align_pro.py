"""drpo align-pro: a group, whose commands are loaded when they are called."""

from __future__ import annotations

from drpo.commands.group import lazy_group

command = lazy_group(
    "align-pro",
    "Align-Pro (arXiv 2501.03486): a prompter before a frozen model, near a reference by a KL term.",
    {
        "estimate": "Estimate the best prompter in closed form, from samples and without training.",
        "train": "Train a prompter by policy gradient (extra drpo[train]).",
    },
)
