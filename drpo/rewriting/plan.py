"""From settings to a rewriter before its first request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drpo.choices import ModelChoice, custom_choice, named_model
from drpo.compose import Sampling
from drpo.config import flag
from drpo.config_common import RunConfig
from drpo.config_rewriting import RewritingConfig
from drpo.errors import InputError
from drpo.llm.base import LLM, Role
from drpo.rewriting.asking import Format
from drpo.rewriting.naming import Kind, RewriterName, read_rewriter_name
from drpo.rewriting.templates import RewriteTemplates

BPO_SAMPLING = (0.6, 0.9)
"""Temperature and top_p of BPO's published inference."""
PROMPTER_SAMPLING = (1.5, 0.6)
"""Those of Align-Pro's prompter (section 7.1; its top_k of 20 stands in the settings of a trained model)."""
DYNAMIC = "dynamic/"
_OF_WEIGHING = ("lambda_", "pick", "rewriter_reward")
_SETTINGS = ("rewriter_mode", "rounds", "rewriter_temperature", "rewriter_top_p", "samples", *_OF_WEIGHING)


@dataclass(frozen=True, slots=True)
class Rewriting:
    """What rewrites queries. judge: who weighs several rewrites by the dynamic reward; reward_model: the name
    of a reward model that does; both empty where nothing is weighed."""

    kind: Kind
    format: Format
    choice: ModelChoice
    templates: RewriteTemplates
    sampling: Sampling
    judge: ModelChoice | None = None
    reward_model: str = ""

    @property
    def models(self) -> dict[Role, ModelChoice]:
        """Who is asked besides the base model."""
        found: dict[Role, ModelChoice] = {"rewriter": self.choice}
        if self.judge is not None:
            found |= {"evaluator": self.judge, "selector": self.judge}
        return found

    def digests(self) -> dict[str, str]:
        """Of what the rewriter reads."""
        name = f"rewrite/{self.format}.j2"
        return {name: self.templates.digests()[name]}


def identity_settings(config: RunConfig) -> dict[str, Any]:
    """The settings that decide which run it is, as plain JSON values; those of a rewriter only where there is
    one, so that runs without are what they were before there were rewriters."""
    settings = config.model_dump(mode="json")
    rewrites = isinstance(config, RewritingConfig) and config.rewrites
    without = set() if rewrites else set(RewritingConfig.__annotations__)
    return {name: settings[name] for name in config.identity_fields() if name not in without}


def rewriting_of(
    config: RewritingConfig, environment: Mapping[str, str], custom: Mapping[Role, LLM] | None = None
) -> Rewriting | None:
    """The rewriter of the settings; None where there is none. Raises InputError for what cannot be used."""
    if not config.rewrites:
        _refuse_idle(config, _SETTINGS, "nothing is rewritten; name a --rewriter too, or leave it out")
        return None
    assert config.rewriter is not None
    templates = RewriteTemplates(config.prompts)
    name = read_rewriter_name(config.rewriter, templates)
    if custom is not None and "rewriter" in custom:
        choice = custom_choice(custom["rewriter"])
    else:
        choice = named_model("rewriter", name.model, config, environment)
    if config.samples > 1 and name.kind != "align-pro":
        raise InputError(
            f"--samples {config.samples}: {name.kind} draws one rewrite; only align-pro weighs several"
        )
    if config.rounds > 1 and name.kind == "align-pro":
        raise InputError(
            f"--rounds {config.rounds}: align-pro rewrites once; only bpo and bpo-prompt have rounds"
        )
    if name.kind == "align-pro":
        _refuse_idle(config, ("rewriter_mode",), "only bpo and bpo-prompt have modes; leave it out")
    sampling = _sampling(config, name)
    judge, reward_model = None, ""
    if config.samples == 1:
        _refuse_idle(config, _OF_WEIGHING, "one rewrite is not weighed; give --samples too, or leave it out")
    else:
        judge, reward_model = _weighed_by(config, environment, choice, custom or {})
    return Rewriting(name.kind, name.format, choice, templates, sampling, judge, reward_model)


def meaning_embedder(config: RunConfig) -> str:
    """The embedder by whose vectors rewrites are held against their queries; "": nothing is embedded, they
    are judged by words, or nothing is rewritten."""
    if not isinstance(config, RewritingConfig) or not config.rewrites:
        return ""
    named = getattr(config, "embedder", None)
    return "" if named in (None, "lexical") else str(named)


def _refuse_idle(config: RewritingConfig, names: Sequence[str], why: str) -> None:
    """A setting that is silently without effect would be taken for one that has it."""
    for name in names:
        if getattr(config, name) != type(config).model_fields[name].default:
            raise InputError(f"{flag(name)}: {why}")


def _sampling(config: RewritingConfig, name: RewriterName) -> Sampling:
    temperature, top_p = PROMPTER_SAMPLING if name.kind == "align-pro" else BPO_SAMPLING
    if name.is_trained:  # what it was trained to be sampled with stands in its own settings
        return Sampling(config.rewriter_temperature, config.rewriter_top_p, config.max_tokens)
    return Sampling(
        temperature if config.rewriter_temperature is None else config.rewriter_temperature,
        top_p if config.rewriter_top_p is None else config.rewriter_top_p,
        config.max_tokens,
    )


def _weighed_by(
    config: RewritingConfig, environment: Mapping[str, str], choice: ModelChoice, custom: Mapping[Role, LLM]
) -> tuple[ModelChoice | None, str]:
    """The model of the dynamic reward, or the name of a reward model."""
    named = config.rewriter_reward
    if "evaluator" in custom:
        return custom_choice(custom["evaluator"]), ""
    if named is None and choice.provider == "demo":
        named = f"{DYNAMIC}demo"
    if named is None:
        raise InputError(
            f"--samples {config.samples}: what weighs the rewrites? give --rewriter-reward: dynamic/MODEL, "
            "or a reward model"
        )
    if named.startswith(DYNAMIC):
        return named_model("evaluator", named.removeprefix(DYNAMIC), config, environment), ""
    from drpo.llm.reward_model import check_reward_model

    check_reward_model(named)
    return None, named
