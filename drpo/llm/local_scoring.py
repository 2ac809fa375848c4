"""How likely a causal language model in this process is to write a text: what it gives each of its tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from drpo.llm.local_generating import Drawing


def text_log_probability(
    model: Any, prompt: Sequence[int], text: Sequence[int], drawing: Drawing, ends: Sequence[int] = ()
) -> float:
    """log P(text | prompt), with `ends` log P(text and then one of these tokens | prompt), in nats; -inf
    where top_k leaves a token out. Each token is given by those before it, whatever the model would write.

    prompt: at least one token. drawing: its top_p is 1, its temperature above 0.
    """
    torch = import_module("torch")
    ids = torch.tensor([[*prompt, *text]], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids).logits[0, len(prompt) - 1 :].double() / drawing.temperature
    if 0 < drawing.top_k < logits.shape[-1]:
        kept = logits.topk(drawing.top_k, dim=-1).indices
        logits = torch.full_like(logits, -torch.inf).scatter(-1, kept, logits.gather(-1, kept))
    shares = logits.log_softmax(dim=-1)
    found = shares[range(len(text)), list(text)].sum().item() if text else 0.0
    if ends:
        found += shares[len(text), list(ends)].logsumexp(dim=0).item()
    return min(0.0, float(found))


def log_of_either(logs: Sequence[float]) -> float:
    """The logarithm of a sum of probabilities given by theirs, at most 0."""
    highest = max(logs)
    if highest == -math.inf:
        return highest
    return min(0.0, highest + math.log(math.fsum(math.exp(log - highest) for log in logs)))
