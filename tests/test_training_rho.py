"""Policy gradient by TRL against rho* of Lemma 5.1, on rewrites of at most two words, all enumerated."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from drpo.align_pro.closed_form import optimal
from drpo.config_training import AlignProTrainConfig
from drpo.rewriting.templates import RewriteTemplates
from drpo.training.base import Base, RewriteFormat, open_base
from drpo.training.place import Place
from drpo.training.policy import reward_function, train_policy
from tests.support.small_models import save_causal, skip_without, word_tokenizer

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("default")]

TEMPERATURE = 1.5  # other than 1: of policy and reference alike, so that nothing is biased
QUERY, WORDS = "a b", ("a", "b", "c", "d")
WORTH = {"a": 0.2, "b": 0.1, "c": 0.6, "d": -0.4}
"""Per word that the frozen model reads. Whatever loses the query is the query itself, as in use."""


@dataclass(frozen=True)
class Toy:
    """A prompter whose every rewrite is known, with its reward."""

    base: Base
    format: RewriteFormat
    rewrites: tuple[tuple[int, ...], ...]
    rewards: tuple[float, ...]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    skip_without("torch", "trl", "datasets")
    folder = save_causal(tmp_path_factory.mktemp("toy") / "toy", word_tokenizer(WORDS), spread=0.06)
    base = open_base(str(folder), "--prompter")
    format = RewriteFormat("apply", RewriteTemplates(), as_chat=False)
    end, size = base.tokenizer.eos_token_id, len(base.tokenizer)
    others = [token for token in range(size) if token != end]
    rewrites = ((end,), *((one, end) for one in others), *itertools.product(others, others, range(size)))
    texts = [base.tokenizer.decode(ids, skip_special_tokens=True) for ids in rewrites]
    function = reward_function(base, format, rewarded)
    values = function(completions=texts, completion_ids=rewrites, query=[QUERY] * len(rewrites))
    return Toy(base, format, rewrites, tuple(float(value or 0.0) for value in values))


def rewarded(pairs: Sequence[tuple[str, str]]) -> list[float]:
    return [math.fsum(WORTH.get(word, 0.0) for word in text.split()) for _, text in pairs]


def shares(folder: Path, toy: Toy, temperature: float) -> list[float]:
    """The probability of each rewrite, by the model's own numbers."""
    transformers, torch = import_module("transformers"), import_module("torch")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompt = toy.base.tokenizer(toy.format.prompt(QUERY))["input_ids"]
    logs: dict[tuple[int, ...], Any] = {}
    for length in range(3):
        begun = sorted({ids[:length] for ids in toy.rewrites if len(ids) > length})
        with torch.inference_mode():
            logits = model(torch.tensor([[*prompt, *ids] for ids in begun])).logits[:, -1]
        logs |= dict(zip(begun, (logits / temperature).log_softmax(-1).tolist(), strict=True))
    return [
        math.exp(math.fsum(logs[ids[:place]][token] for place, token in enumerate(ids)))
        for ids in toy.rewrites
    ]


def trained(toy: Toy, out: Path, **settings: Any) -> tuple[list[float], list[dict[str, float]]]:
    """The probabilities after training, and its figures."""
    given = {"out": out, "model": "demo", "prompter": "toy", "reward": "dynamic/demo", "rewrite_tokens": 3}
    given |= {"temperature": TEMPERATURE, "top_p": 1.0, "top_k": 0, "learning_rate": 4e-3, "steps": 80}
    given |= {"rewrites": 256, "batch": 256, "accumulate": 1}
    config = AlignProTrainConfig.model_validate({**given, **settings})
    place = Place(out, {"toy": str(settings)})
    _, figures = train_policy(config, toy.base, toy.format, [QUERY] * 8, rewarded, place, lambda said: None)
    place.close()
    return shares(out, toy, TEMPERATURE), figures


def expected(probabilities: Sequence[float], values: Sequence[float]) -> float:
    return math.fsum(p * value for p, value in zip(probabilities, values, strict=True))


def divergence(one: Sequence[float], other: Sequence[float]) -> float:
    return math.fsum(p * math.log(p / q) for p, q in zip(one, other, strict=True) if p > 0)


def distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Total variation."""
    return math.fsum(abs(p - q) for p, q in zip(one, other, strict=True)) / 2


def test_rloo_comes_to_rho_star_and_lambda_sets_how_far_it_goes(toy: Toy, tmp_path: Path) -> None:
    reference = shares(toy.base.folder, toy, TEMPERATURE)
    assert math.fsum(reference) == pytest.approx(1)
    reward, gone = list[float](), list[float]()
    for lambda_ in (0.08, 0.12):
        probabilities, figures = trained(toy, tmp_path / str(lambda_), lambda_=lambda_)
        best = optimal(reference, toy.rewards, lambda_)
        reward.append(expected(probabilities, toy.rewards))
        gone.append(divergence(probabilities, reference))
        assert distance(probabilities, best.probabilities) < 0.6 * distance(reference, best.probabilities)
        assert gone[-1] == pytest.approx(best.kl, rel=0.4)
        assert figures[-1]["kl"] == pytest.approx(gone[-1], rel=0.3)
        assert figures[-1]["reward"] > figures[0]["reward"] + 0.05
    assert reward[0] > reward[1] > expected(reference, toy.rewards)
    assert gone[0] > 1.5 * gone[1]


def test_grpo_gains_reward_and_comes_nearer_to_rho_star(toy: Toy, tmp_path: Path) -> None:
    reference = shares(toy.base.folder, toy, TEMPERATURE)
    probabilities, _ = trained(toy, tmp_path / "out", lambda_=0.08, algorithm="grpo")
    best = optimal(reference, toy.rewards, 0.08)
    assert distance(probabilities, best.probabilities) < distance(reference, best.probabilities)
    assert expected(probabilities, toy.rewards) > expected(reference, toy.rewards)
