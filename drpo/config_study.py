"""Settings of `drpo study`: those of a search and of an evaluation, and how often the search is repeated."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from drpo.config import OptimizeConfig
from drpo.config_common import setting

with warnings.catch_warnings():
    # pydantic's models have an old method of that name, which drpo does not use.
    warnings.filterwarnings("ignore", 'Field name "validate"', UserWarning)

    class StudyConfig(OptimizeConfig):
        """Every search of a study has the settings of `drpo optimize`, every evaluation those of `drpo
        evaluate`, but for what the study itself compares."""

        judge: str | None = setting(
            None, "Model that judges: openai/NAME or vllm/REPO, with @URL (demo's default: demo)."
        )
        repeats: int | None = setting(
            None,
            "R: searches per row, with the random seeds from --random-seed on (default: 1, for demo 3).",
            identity=False,
            ge=1,
            le=100,
        )
        models: str | None = setting(
            None,
            "For results, transfer and parts: several base models, parted by commas or blanks; demo@SEED is "
            "the simulated model of another world (transfer's default on demo: three worlds).",
            identity=False,
        )
        examples_depth: int = setting(
            5, "For reward: times each example is improved before the search.", ge=1, le=1000
        )
        validate: int | None = setting(  # type: ignore[assignment]
            0, "N: seed queries kept to compare a search's best prompts on, as for optimize.", ge=0, le=1000
        )
        data: str | None = setting(
            None, "Queries that the judge scores: as for evaluate (default: the shipped held-out ones)."
        )
        data_column: str | None = setting(None, "Field of the data that holds the query.")
        limit: int | None = setting(None, "So many queries of the data at most, the first ones.", ge=1)
        rewriting_model: str | None = setting(
            None, "For rewriters: who rewrites by instruction, and is align-pro's prompter (as --optimizer)."
        )
        bpo: str | None = setting(None, "For rewriters: a trained BPO model, PATH or REPO@URL.")
        prompter: str | None = setting(None, "For rewriters: a trained prompter, PATH or REPO@URL.")
        rewrites: int = setting(8, "For rewriters: N, rewrites that align-pro weighs.", ge=2, le=256)
        lambda_: float = setting(0.3, "For rewriters: weight of align-pro's KL term.", gt=0)
        na: Literal["leave-out", "five"] = setting(
            "leave-out",
            "What an N/A of the judge does to a mean: nothing, or count as a 5 (just-eval's habit).",
            identity=False,
        )
        level: float = setting(0.95, "Confidence of the intervals.", identity=False, gt=0.5, lt=1)
        demo_judge: Literal["fair", "first", "longer", "obedient"] = setting(
            "fair", "What a simulated judge is like: as for evaluate."
        )
        out: Path | None = setting(
            None, "Folder for the tables, one folder a study (default: the study's own).", identity=False
        )

        @model_validator(mode="before")
        @classmethod
        def _first_of_several(cls, values: Any) -> Any:
            """The first of `models` is the model where none is named by itself."""
            if isinstance(values, dict) and values.get("models") and not values.get("model"):
                first = names_of(str(values["models"]))[0]
                return {**values, "model": "demo" if first.startswith("demo@") else first}
            return values


def names_of(models: str) -> tuple[str, ...]:
    """The names in a setting that holds several, in order and each once. Commas inside a name's @URL list
    (several servers of one model) part no names."""
    parts: list[str] = []
    for word in models.replace(",", " , ").split():
        continues = word.startswith(("http://", "https://")) and bool(parts)
        if continues:
            parts[-1] += f",{word}"
        elif word != ",":
            parts.append(word)
    return tuple(dict.fromkeys(parts)) or (models,)
