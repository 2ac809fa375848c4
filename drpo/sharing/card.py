"""The model card of a shared alignment: Markdown in which every foreign text is a value."""

from __future__ import annotations

import json
import re

from drpo.alignment import Alignment
from drpo.sharing.folder import PROMPTS_FOLDER
from drpo.sharing.private import ELSEWHERE
from drpo.validation.result import FloorCheck, Validation, interval_text

SIMULATED = (
    "**Simulated.** This alignment was found with the simulated models of drpo (`demo`): its figures say "
    "nothing about real models."
)
_REPOSITORY = re.compile(r"vllm/(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@[\w.-]+)?(?:\[.*\])?")
_NAMED = re.compile(r"(?P<name>(?:openai|vllm)/[A-Za-z0-9][\w./@-]*)(?:\[.*\])?", re.ASCII)
_PAPER = "[DRPO](https://arxiv.org/abs/2411.08733)"


def card_text(alignment: Alignment, repository: str, licence: str | None) -> str:
    """The content of README.md: equal alignments give equal cards, without date, machine or version."""
    name = repository.partition("/")[2]
    sections = [
        *([SIMULATED] if alignment.simulated else []),
        f"# {repository}",
        _what(alignment),
        "## The system prompt\n\n" + fenced(alignment.system_prompt),
        "## How it was found\n\n" + _how(alignment),
        "## What it gains\n\n" + _gain(alignment),
        "## Limits\n\n" + _limits(alignment),
        "## How to use it\n\n" + _use(alignment, repository, name),
    ]
    return f"---\n{_front_matter(alignment, licence)}---\n\n" + "\n\n".join(sections) + "\n"


def fenced(text: str, language: str = "text") -> str:
    """A code block that holds the text, whatever fences are in it."""
    ticks = "`" * max(3, _longest_run(text) + 1)
    return f"{ticks}{language}\n{text}\n{ticks}"


def inline(text: str) -> str:
    """A code span of one line that holds the text, blanks and breaks as single blanks."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    ticks = "`" * (_longest_run(line) + 1)
    return f"{ticks} {line} {ticks}" if "`" in line else f"`{line or ' '}`"


def base_repository(alignment: Alignment) -> str | None:
    """The hub's repository of the base model, None where its name is none or a folder's."""
    name = alignment.models.get("base", "").removesuffix(ELSEWHERE)
    found = _REPOSITORY.fullmatch(name)
    return None if found is None else found["name"]


def model_to_name(alignment: Alignment) -> str | None:
    """What `--model` takes to ask the model that it was found for: its name, "MODEL" where others name it
    otherwise, None where it is simulated. A shared file does not decide whom its user asks."""
    base = alignment.models.get("base", "")
    if base.startswith("demo/"):
        return None
    found = _NAMED.fullmatch(base)
    return "MODEL" if found is None else found["name"]


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _front_matter(alignment: Alignment, licence: str | None) -> str:
    from huggingface_hub import ModelCardData

    tags = ["drpo", "alignment", "system-prompt", "prompt-optimization"]
    data = ModelCardData(
        base_model=base_repository(alignment),
        library_name="drpo",
        license=licence,
        tags=[*tags, "simulated"] if alignment.simulated else tags,
    )
    return data.to_yaml(line_break="\n") + "\n"


def _what(alignment: Alignment) -> str:
    shown = (
        f"{len(alignment.examples)} in-context examples, of which the {alignment.shots} nearest to a query "
        f"(found by {inline(alignment.embedder)}) are shown before it"
        if alignment.shots
        else "no in-context examples"
    )
    return (
        f"A system prompt with {shown}. It aligns a frozen language model without training, and was found "
        f"for {inline(alignment.models.get('base', '-'))}, asked as {inline(alignment.prompt_form)}, by the "
        f"search of {_PAPER}. No weights are in here."
    )


def _how(alignment: Alignment) -> str:
    found = alignment.found
    score = "not scored" if found.path_score is None else f"{found.path_score:.2f}"
    roles = [
        f"| {role} | {inline(name)} | {found.calls.get(role, 0):,} |" for role, name in _roles(alignment)
    ]
    lines = [
        f"{found.levels} levels and {found.nodes} nodes; it ended with {inline(found.ended)}. Mean reward on "
        f"the path that was taken, from 1 to 5: {score}; that is what the search climbed, no measurement.",
        "",
        "| role | model | calls |",
        "|---|---|---|",
        *roles,
        "",
        "Settings:",
        "",
        fenced(json.dumps(found.settings["settings"], ensure_ascii=False, indent=2), "json"),
    ]
    return "\n".join(lines)


def _roles(alignment: Alignment) -> list[tuple[str, str]]:
    """Role and model, those roles without a model too that were called. A role is one word."""
    names = {**dict.fromkeys(alignment.found.calls, "-"), **alignment.models}
    return [(re.sub(r"\W", " ", role), name.replace("|", "/")) for role, name in names.items()]


def _gain(alignment: Alignment) -> str:
    validation = alignment.validation
    if validation is None:
        return (
            "It was not validated: nothing is known about its gain over the initial prompt on queries that "
            "the search did not see."
        )
    judge = inline(alignment.models.get("evaluator", "-"))
    said = (
        f"On {validation.queries} queries kept from the search, judged by {judge} from 1 to 5 per aspect: "
        f"{validation.sentence}. Intervals hold at {validation.level:.0%} for all prompts compared at once."
    )
    parts = [said, *_details(validation)]
    if not validation.chosen:
        parts.append("The system prompt above is therefore the initial one.")
    return "\n\n".join(parts)


def _details(validation: Validation) -> list[str]:
    told = [_floor_line(check) for check in validation.floors if check.node == validation.chosen]
    if validation.missing:
        told.append(f"{validation.missing} of {validation.asked} rewards could not be had.")
    return told


def _floor_line(check: FloorCheck) -> str:
    if check.change is None:
        return f"On the {inline(check.name)} queries nothing could be measured."
    interval = interval_text(check.low, check.high)
    return (
        f"On the {inline(check.name)} queries it changes the mean reward by {check.change:+.2f} {interval}."
    )


def _limits(alignment: Alignment) -> str:
    limits = [
        "Found for one model: for another one it may do less, nothing or harm. Measure it there "
        "(`drpo compare`).",
        "What is called better is what the evaluator calls better; people may see it otherwise.",
        "A system prompt guides a model and guards nothing: it is no safety measure by itself.",
        "It fits queries like those of the search; other languages and tasks were not looked at.",
    ]
    if alignment.shots:
        limits.append("The examples were part of the search: with fewer or others it is another alignment.")
    return "\n".join(f"- {limit}" for limit in limits)


def _use(alignment: Alignment, repository: str, name: str) -> str:
    needs = "hub,embed" if alignment.embedder.startswith("sentence-transformers/") else "hub"
    model = "" if (named := model_to_name(alignment)) is None else f" --model {named}"
    commands = [
        f"pip install 'drpo[{needs}]'",
        f"drpo pull {repository}",
        f"drpo chat {name}{model}",
        f"drpo generate {name} --in queries.jsonl --out answers.jsonl{model}",
    ]
    python = [
        "import drpo",
        "",
        f'aligned = drpo.load("{name}")',
        'aligned.messages("a query")  # what the model is sent, in the form of the OpenAI API',
    ]
    told = (
        f"`{PROMPTS_FOLDER}/` holds the templates that it was searched with. Where drpo says that its "
        f"own are others, add `--prompts {name}/{PROMPTS_FOLDER}` (in Python `prompts=`)."
    )
    elsewhere = (
        "MODEL is the one that it was found for, where you have it, such as `openai/NAME@URL` or `vllm/PATH`."
    )
    parts = [fenced("\n".join(commands), "sh"), fenced("\n".join(python), "python"), told]
    return "\n\n".join([*parts, elsewhere] if named == "MODEL" else parts)
