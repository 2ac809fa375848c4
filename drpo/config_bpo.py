"""Settings of `drpo bpo build`."""

from __future__ import annotations

from pathlib import Path

from pydantic import field_validator

from drpo.config_common import RunConfig, setting


class BuildConfig(RunConfig):
    """What makes pairs of prompts from human preferences."""

    pairs: str = setting(
        ...,
        "Preferences: a file (JSONL, JSON, CSV) or Hugging Face dataset with chosen and rejected, good_res "
        "and bad_res, or Arena's conversations; or demo.",
    )
    optimizer: str | None = setting(
        None, "Model that compares the responses and rewrites the instruction, such as openai/NAME or demo."
    )
    limit: int | None = setting(None, "So many preferences at most, the first ones.", ge=1)
    protect: tuple[str, ...] = setting(
        (), "Text that an instruction which holds it must keep word for word; may be repeated."
    )
    optimizer_temperature: float = setting(0.0, "Sampling of the optimizer; 0: greedy.", ge=0, le=2)
    optimizer_top_p: float | None = setting(None, "Sampling of the optimizer.", gt=0, le=1)
    out: Path | None = setting(None, "Folder for the data (default: in the run).", identity=False)

    @field_validator("protect")
    @classmethod
    def _says_something(cls, passages: tuple[str, ...]) -> tuple[str, ...]:
        if not all(passage.strip() for passage in passages):
            raise ValueError("expected a text, came a blank one")
        return passages
