"""The targets by their names."""

from __future__ import annotations

from drpo.exporting.chat_template import CHAT_TEMPLATE_TARGET, VLLM_TARGET
from drpo.exporting.export import Target
from drpo.exporting.harness import LM_EVAL_TARGET
from drpo.exporting.inspect_task import INSPECT_TARGET
from drpo.exporting.ollama import MODELFILE_TARGET
from drpo.exporting.openai_script import OPENAI_TARGET
from drpo.exporting.plain import MESSAGES_TARGET, TEXT_TARGET
from drpo.exporting.promptfoo import PROMPTFOO_TARGET

TARGETS: tuple[Target, ...] = (
    CHAT_TEMPLATE_TARGET,
    MODELFILE_TARGET,
    MESSAGES_TARGET,
    OPENAI_TARGET,
    PROMPTFOO_TARGET,
    INSPECT_TARGET,
    LM_EVAL_TARGET,
    VLLM_TARGET,
    TEXT_TARGET,
)


def target_named(name: str) -> Target:
    """The target of that name, which must be one of `TARGETS`."""
    return next(target for target in TARGETS if target.name == name)
