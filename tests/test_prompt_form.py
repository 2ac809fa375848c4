"""How a base model on a vLLM server is asked, where the catalog does not know."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from drpo.config import OptimizeConfig
from drpo.live import Resources
from drpo.llm.limits import Stop
from drpo.llm.recorder import Record
from drpo.plan import optimize_plan
from drpo.respond import choose_form
from drpo.settings import resolve
from tests.support.mock_openai import MockServer, Reply, error


@pytest.mark.parametrize(("has_template", "form"), [(True, "chat"), (False, "text")])
async def test_a_chat_is_tried_once_and_what_came_of_it_is_recorded(
    tmp_path: Path, has_template: bool, form: str
) -> None:
    no_template = "default chat template is no longer allowed, so you must provide a chat template"

    def handler(model: str, body: dict[str, Any]) -> Reply:
        return Reply() if has_template else error(400, no_template)

    async with MockServer(handler, script=[error(503, "starting")]) as server:
        given = {"model": f"vllm/owner/unknown@{server.url}", "optimizer": "demo", "embedder": "lexical"}
        plan = optimize_plan(resolve(OptimizeConfig, given, {}), {})
        stop = Stop()
        found = []
        for _ in range(2):
            resources = Resources(Record(tmp_path / "calls.jsonl"), stop, {}, plan.config)
            found.append(await asyncio.wait_for(choose_form(plan.models["base"], "auto", resources), 20))
            await resources.close()
        assert found == [form, form]
        # The tokenizer is asked first, of which this server knows nothing; then the chat, too early at first.
        assert [seen.path for seen in server.requests] == ["/tokenize", *["/v1/chat/completions"] * 2]
    assert not stop.is_set
