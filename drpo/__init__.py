"""drpo: search for the system prompt and the in-context examples that align a frozen language model.

    import drpo
    result = drpo.optimize(model="demo")
    print(result.alignment.system_prompt)

Names are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drpo.align_pro.results import Estimation as Estimation
    from drpo.alignment import Alignment as Alignment
    from drpo.api import optimize as optimize
    from drpo.api import optimize_async as optimize_async
    from drpo.api import optimize_examples as optimize_examples
    from drpo.api import optimize_examples_async as optimize_examples_async
    from drpo.api import replay as replay
    from drpo.api_measuring import align_pro_estimate as align_pro_estimate
    from drpo.api_measuring import align_pro_estimate_async as align_pro_estimate_async
    from drpo.api_measuring import audit_judge as audit_judge
    from drpo.api_measuring import audit_judge_async as audit_judge_async
    from drpo.api_measuring import bpo_build as bpo_build
    from drpo.api_measuring import bpo_build_async as bpo_build_async
    from drpo.api_measuring import compare as compare
    from drpo.api_measuring import compare_async as compare_async
    from drpo.api_measuring import evaluate as evaluate
    from drpo.api_measuring import evaluate_async as evaluate_async
    from drpo.api_measuring import rewrite as rewrite
    from drpo.api_measuring import rewrite_async as rewrite_async
    from drpo.api_study import study as study
    from drpo.api_study import study_async as study_async
    from drpo.api_use import LoadedAlignment as LoadedAlignment
    from drpo.api_use import load as load
    from drpo.bpo.building import Built as Built
    from drpo.config import ExamplesConfig as ExamplesConfig
    from drpo.config import OptimizeConfig as OptimizeConfig
    from drpo.errors import DrpoError as DrpoError
    from drpo.llm.base import LLM as LLM
    from drpo.llm.base import Choice as Choice
    from drpo.llm.base import Completion as Completion
    from drpo.llm.base import Message as Message
    from drpo.llm.base import Request as Request
    from drpo.llm.base import Usage as Usage
    from drpo.measuring.auditing import AuditResult as AuditResult
    from drpo.measuring.comparing import Comparison as Comparison
    from drpo.measuring.results import Evaluation as Evaluation
    from drpo.replaying import MissingCall as MissingCall
    from drpo.replaying import ReplayReport as ReplayReport
    from drpo.results import ExamplesResult as ExamplesResult
    from drpo.results import OptimizeResult as OptimizeResult
    from drpo.rewriting.contract import Rewrite as Rewrite
    from drpo.run import Hooks as Hooks
    from drpo.studies.result import StudyResult as StudyResult

_HOMES = {
    "align_pro.results": ("Estimation",),
    "alignment": ("Alignment",),
    "api": (
        "optimize",
        "optimize_async",
        "optimize_examples",
        "optimize_examples_async",
        "replay",
    ),
    "api_measuring": (
        "align_pro_estimate",
        "align_pro_estimate_async",
        "audit_judge",
        "audit_judge_async",
        "bpo_build",
        "bpo_build_async",
        "compare",
        "compare_async",
        "evaluate",
        "evaluate_async",
        "rewrite",
        "rewrite_async",
    ),
    "api_study": ("study", "study_async"),
    "api_use": ("LoadedAlignment", "load"),
    "bpo.building": ("Built",),
    "config": ("ExamplesConfig", "OptimizeConfig"),
    "errors": ("DrpoError",),
    "llm.base": ("LLM", "Choice", "Completion", "Message", "Request", "Usage"),
    "measuring.auditing": ("AuditResult",),
    "measuring.comparing": ("Comparison",),
    "measuring.results": ("Evaluation",),
    "replaying": ("MissingCall", "ReplayReport"),
    "rewriting.contract": ("Rewrite",),
    "run": ("ExamplesResult", "Hooks", "OptimizeResult"),
    "studies.result": ("StudyResult",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'drpo' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"drpo.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value
