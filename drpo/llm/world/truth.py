"""How good a prompt really is in a world: what an evaluator without noise would say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

from drpo.llm.world.directives import BY_NAME, HELPFUL
from drpo.llm.world.editing import _INTRODUCTIONS
from drpo.llm.world.features import Feature as F
from drpo.llm.world.judging import Verdict, judge
from drpo.llm.world.prompts import MOST_BULLETS, read_prompt, shifts_of
from drpo.llm.world.queries import QueryReading, read_query
from drpo.llm.world.responding import plan, shot_shares
from drpo.llm.world.responses import ResponseReading, read_response
from drpo.llm.world.settings import Dice, World
from drpo.types import Aspect
