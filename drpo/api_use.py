"""The public way to use an alignment: `drpo.load`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from drpo.alignment import Aligned, Alignment
from drpo.api import run_async
from drpo.compose import Composer
from drpo.config_use import UseConfig
from drpo.llm.base import LLM, Role
from drpo.llm.connections import Connections
from drpo.llm.limits import Stop
from drpo.loading import load_alignment
from drpo.measuring.answering import made_for_another
from drpo.run import log
from drpo.settings import environment, resolve
from drpo.use.asking import Turns
from drpo.use.plan import use_plan
from drpo.use.session import Session
from drpo.wiring import EmbeddingLimits, build_retriever

T = TypeVar("T")


class LoadedAlignment:
    """A loaded alignment. Renders as the search did, shots retrieved by the same embedder.

    `messages` and `prompt` need no model; `complete` and `stream` ask one, the first of them opens what it
    takes (a vLLM server that drpo runs, too) and `close`, or leaving a `with`, ends that.
    """

    def __init__(
        self, aligned: Aligned, connections: Connections, open_session: Callable[[], Session]
    ) -> None:
        self._aligned, self._connections, self._open_session = aligned, connections, open_session
        self._session: Session | None = None

    @property
    def alignment(self) -> Alignment:
        """The content of alignment.json."""
        return self._aligned.alignment

    def messages(self, query: str) -> list[dict[str, str]]:
        """The chat messages for `query`, as the OpenAI API takes them."""
        rendered = run_async(self._closing(self._aligned.render_messages(query)))
        return [{"role": message.role, "content": message.content} for message in rendered]

    def prompt(self, query: str) -> str:
        """The page for a base model, which continues it; stop at `drpo.compose.TEXT_STOP`."""
        return run_async(self._closing(self._aligned.render_text(query)))

    def answer(self, written: str) -> str:
        """The answer in what the model has written: a base model may have gone on behind its end."""
        return self._aligned.answer(written)

    def complete(self, query: str, before: Turns = ()) -> str:
        """The model's answer. before: earlier turns as (query, answer), the oldest first.

        Raises InputError where it does not fit the model's context, and what the model's server raises.
        """
        return self._opened().complete(query, before).text

    def stream(self, query: str, before: Turns = ()) -> Iterator[str]:
        """The model's answer as it comes; who stops reading ends it."""
        return self._opened().stream(query, before)

    def close(self) -> None:
        """Release what asking a model has opened. May be called twice."""
        if self._session is not None:
            self._session.close()

    def _opened(self) -> Session:
        if self._session is None:
            self._session = self._open_session()
        return self._session

    async def _closing(self, work: Coroutine[Any, Any, T]) -> T:
        """Each call has an event loop of its own, and leaves no connection on it."""
        try:
            return await work
        finally:
            await self._connections.aclose()

    def __enter__(self) -> LoadedAlignment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load(
    path: str | Path,
    *,
    prompts: str | Path | None = None,
    models: Mapping[Role, LLM] | None = None,
    **settings: Any,
) -> LoadedAlignment:
    """The alignment of a run directory or file.

    prompts: the templates folder it was searched with, where that was not the shipped one (a run directory
    has them itself). models: your own `LLM` object as {"base": ...}. settings: see `UseConfig`, such as
    model="openai/NAME" for another model than the one of the search, or temperature=0.7.
    """
    env = environment()
    if prompts is not None:
        settings["prompts"] = str(prompts)
    config = resolve(UseConfig, settings, env)
    alignment, templates = load_alignment(Path(path), config.prompts)
    connections = Connections()
    retriever = build_retriever(
        alignment.embedder, alignment.examples, connections, env, Stop(), EmbeddingLimits()
    )
    composer = Composer(templates, alignment.prompt_form, cut=alignment.answer_end == "cut")

    def open_session() -> Session:
        plan = use_plan("use", str(path), config, env, models)
        if (said := made_for_another(plan.subject, plan.choice)) is not None:
            log.warning(said)
        return Session(plan, env, log.info)

    return LoadedAlignment(Aligned(alignment, composer, retriever), connections, open_session)
