"""An alignment as a search would have left it, without the search."""

from __future__ import annotations

from pathlib import Path

from drpo.alignment import Alignment, Found, template_digest
from drpo.compose import PromptForm, Sampling
from drpo.data import read_examples
from drpo.resources import resource_folder
from drpo.templates import Templates

SYSTEM_PROMPT = "You are a careful assistant.\n- Say what you do not know."


def written_alignment(path: Path, form: PromptForm = "chat", found_for: str | None = None) -> Path:
    """A file with the 16 shipped examples, K = 3, whose shots are found by words."""
    found = Found({}, None, (), 1, 1, "depth", {})
    alignment = Alignment(
        system_prompt=SYSTEM_PROMPT,
        examples=read_examples(resource_folder("icl_examples") / "base.jsonl").examples,
        shots=3,
        prompt_form=form,
        embedder="lexical",
        models={} if found_for is None else {"base": found_for},
        sampling=Sampling(),
        template_digest=template_digest(Templates(), form),
        found=found,
        answer_end="cut",
    )
    alignment.save(path)
    return path
