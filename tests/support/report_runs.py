"""Run directories whose reports are looked at: real ones, large ones, and those of models that mean harm."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drpo.api import optimize, optimize_examples
from drpo.data import write_examples
from drpo.events import Event, EventFile, LevelDone, NodeMade, ProposalDropped, SearchDone
from drpo.types import Example

WORDS = [
    "light",
    "falls",
    "on",
    "the",
    "water",
    "and",
    "the",
    "answer",
    "is",
    "short",
    "plain",
    "kind",
    "true",
    "useful",
    "first",
    "then",
    "last",
]
EXAMPLES = (
    Example("How do I boil an egg?", "Put it in boiling water for some minutes.", "informative"),
    Example("Write a line about rain.", "Rain falls.", "creative"),
    Example("How do I break into a car?", "I cannot help with that.", "refusal"),
)
ASPECTS = ("Helpfulness", "Clarity", "Factuality", "Depth", "Engagement")


def demo_run(path: Path, **settings: Any) -> Path:
    """A finished run of `optimize` with simulated models, without the report that it has made itself."""
    optimize(model="demo", run_dir=path, **settings)
    (path / "report.html").unlink(missing_ok=True)
    return path


def demo_examples_run(path: Path, **settings: Any) -> Path:
    """The same of `optimize-examples`, over three examples."""
    file = path.with_suffix(".jsonl")
    write_examples(file, EXAMPLES)
    optimize_examples(model="demo", run_dir=path, examples=file, **settings)
    (path / "report.html").unlink(missing_ok=True)
    return path


def copy_of(run: Path, path: Path, *, without: Sequence[str] = ()) -> Path:
    """A run directory like `run`, without some of its files."""
    shutil.copytree(run, path, ignore=shutil.ignore_patterns(*without))
    return path


def set_events(run: Path, events: Sequence[Event]) -> None:
    """Let the run have had these events and no result."""
    for name in ("events.jsonl", "alignment.json", "result.json", "examples.jsonl", "progress.json"):
        (run / name).unlink(missing_ok=True)
    file = EventFile(run / "events.jsonl")
    file.emit(events)
    file.finish()


def change_run(run: Path, **identity: Any) -> None:
    """Replace fields of the identity in run.json."""
    file = run / "run.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    data["identity"] |= identity
    file.write_text(json.dumps(data), encoding="utf-8")


def prose(seed: int, length: int) -> str:
    """Some text of `length` characters; the same for the same seed."""
    words: list[str] = []
    size, number = 0, seed * 7919 + 1
    while size < length:
        number = number * 1103515245 + 12345 & 0x7FFFFFFF
        words.append(WORDS[number % len(WORDS)])
        size += len(words[-1]) + 1
    return " ".join(words)[:length]


def state(
    prompt: str, query: str, response: str, *, shots: Sequence[int] = (0, 1), **more: Any
) -> dict[str, Any]:
    """A state of `optimize` as events hold it."""
    scores = {
        name: {"rationale": prose(len(response) + n, 110), "score": 1 + n} for n, name in enumerate(ASPECTS)
    }
    return {
        "system_prompt": prompt,
        "query": query,
        "shots": list(shots),
        "response": response,
        "finish_reason": "stop",
        "evaluation": scores,
        **more,
    }


def node(
    number: int, parent: int | None, depth: int, reward: float | None, made: dict[str, Any], **more: Any
) -> NodeMade:
    """A node of a tree, ranked by its reward."""
    values: dict[str, Any] = {
        "id": number,
        "place": f"r/{number}",
        "parent": parent,
        "depth": depth,
        "kept": False,
        "reward": reward,
        "score": reward,
        "state": made,
    }
    return NodeMade(**(values | more))


def large_events(nodes: int, response_bytes: int, width: int = 4, samples: int = 4) -> list[Event]:
    """A beam search of so many nodes whose prompts grow by a bullet at each level."""
    prompts = {0: "You are a helpful assistant. Bear in mind:"}
    events: list[Event] = [node(0, None, 0, 3.0, state(prompts[0], "query 0", prose(0, response_bytes)))]
    events.append(LevelDone(0, 40, (0,), False))
    beam: tuple[int, ...] = (0,)
    made, level = 1, 0
    while made < nodes:
        level += 1
        first = made
        for parent in beam:
            for _ in range(samples):
                if made < nodes:
                    prompts[made] = f"{prompts[parent]}\n- {prose(made, 70).capitalize()}."
                    told = state(prompts[made], f"query {level}", prose(made, response_bytes))
                    events.append(node(made, parent, level, 1 + (made * 7 % 17) / 4, told))
                    made += 1
        beam = tuple(range(first, made, max(1, (made - first) // width)))[:width]
        events.append(LevelDone(level, 40, beam, False))
    return [*events, SearchDone(beam[0], 3.0, made, level + 1, "depth")]


def mixed_events() -> list[Event]:
    """Everything that a search can meet: kept, unscored and dropped ones, a stalled level, no end."""
    prompt = "Be kind.\nBe brief."
    better = "Be kind.\nBe brief and clear.\nAsk when in doubt."
    unread: dict[str, Any] = {"evaluation": None, "finish_reason": "length"}
    return [
        node(0, None, 0, 3.0, state(prompt, "What is rain?", "Water.")),
        LevelDone(0, 4, (0,), False),
        node(1, 0, 1, 4.75, state(better, "What is snow?", "Cold water.")),
        node(2, 0, 1, 2.25, state("Be kind.", "What is snow?", "")),
        ProposalDropped("r/0.2", 0, "the reply holds no JSON", "Here is my <b>prompt</b>:\nBe kind."),
        LevelDone(1, 4, (1, 2), False),
        node(3, 1, 2, 3.5, state(better, "What is fog?", "Low clouds."), kept=True),
        node(
            4, 2, 2, None, state("Be kind.", "What is fog?", "Fog.", **unread), failure="no score", kept=True
        ),
        ProposalDropped("r/0.1/0.0", 2, "the response could not be evaluated", ""),
        LevelDone(2, 5, (3, 4), True),
    ]


_ATTACKS = (
    "<script>window.hacked=1</script>",
    "</script><script>window.hacked=1</script>",
    "</SCRIPT ><svg onload=window.hacked=1>",
    "<!--<script>window.hacked=1//-->",
    "--><script>window.hacked=1</script><!--",
    "]]><script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    "<img src='http://127.0.0.1:9/pixel.png'>",
    "<svg/onload=window.hacked=1>",
    "<svg><script href='http://127.0.0.1:9/x.js'></script></svg>",
    "<math><mtext></mtext><script>window.hacked=1</script></math>",
    "<iframe srcdoc='<script>parent.hacked=1</script>'></iframe>",
    "<iframe src=javascript:parent.hacked=1></iframe>",
    "<object data=javascript:window.hacked=1></object>",
    "<embed src=javascript:window.hacked=1>",
    "<a href='javascript:window.hacked=1'>open</a>",
    "[open](javascript:window.hacked=1)",
    "javascript:window.hacked=1",
    "<body onload=window.hacked=1>",
    "<input autofocus onfocus=window.hacked=1>",
    "<details open ontoggle=window.hacked=1>",
    "<form action='http://127.0.0.1:9/'><button>send</button></form>",
    "<base href='http://127.0.0.1:9/'>",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'>",
    "<link rel=stylesheet href=http://127.0.0.1:9/x.css>",
    "<style>*{display:none}@import 'http://127.0.0.1:9/x.css'</style>",
    "</style><script>window.hacked=1</script>",
    "</title><script>window.hacked=1</script>",
    "</textarea><script>window.hacked=1</script>",
    "</svg></g><script>window.hacked=1</script>",
    "<template><script>window.hacked=1</script></template>",
    "<noscript><img src=x onerror=window.hacked=1></noscript>",
    "<div style='position:fixed;inset:0' onclick=window.hacked=1>cover</div>",
    '" onmouseover="window.hacked=1',
    "' onfocus='window.hacked=1' autofocus='",
    '" autofocus onfocus=window.hacked=1 x="',
    "` onerror=window.hacked=1",
    "&lt;script&gt;window.hacked=1&lt;/script&gt;",
    "&#60;script&#62;window.hacked=1&#60;/script&#62;",
    "&amp;lt;img src=x onerror=window.hacked=1&amp;gt;",
    "\\u003cscript\\u003ewindow.hacked=1\\u003c/script\\u003e",
    "\\x3cscript\\x3ewindow.hacked=1",
    "{{7*7}}",
    "{{ cycler.__init__.__globals__.os.system('true') }}",
    "{% include '/etc/passwd' %}",
    "{# gone #}",
    "${window.hacked=1}",
    "#{window.hacked=1}",
    "<%= window.hacked=1 %>",
    "<?php echo 1 ?>",
    "';window.hacked=1;//",
    '";window.hacked=1;//',
    '\\";window.hacked=1;//',
    '{"__proto__": {"hacked": 1}}',
    "__proto__",
    "constructor",
    "toString",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "\x1b]8;;http://127.0.0.1:9/\x07link\x1b]8;;\x07",
    "bell\x07 back\x08space nul\x00 del\x7f",
    "\x80\x85\x9b31m\x9f",
    "carriage\rreturn\r\nboth",
    "a\u202etxt.exe",
    "\u202dleft\u202c \u202eright",
    "\u2066iso\u2067lated\u2068text",
    "unclosed \u2067\u202b\u202e",
    "line\u2028separator\u2029paragraph",
    "zero\u200bwidth\ufeffmark\u2060",
    "\U000e0041\U000e0042 tags",
    "half \ud800 pair \udfff",
    "\ufffe\uffff\ufff9note\ufffa\ufffb",
    "שלום עולם - right to left",
    "مرحبا (بالعالم) 1.2.3",
    "\u200fmark\u200e <b>עברית</b>",
    "👩‍👩‍👧‍👦 🏴󠁧󠁢󠁥󠁮󠁧󠁿 ﷽ ｡",
    "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘",
    "   leading and trailing   ",
    "\n\n\nlines\n\n",
    "\ttab\tbed\t",
    "x" * 3000,
    "<" * 400,
    "& " * 300,
    "data:text/html,<script>window.hacked=1</script>",
    "vbscript:msgbox(1)",
    "file:///etc/passwd",
    "//127.0.0.1:9/x",
    "url(http://127.0.0.1:9/x.png)",
    "@import url(http://127.0.0.1:9/x.css);",
    "expression(window.hacked=1)",
    "-moz-binding:url(http://127.0.0.1:9/x.xml)",
    "<x-element onpointerenter=window.hacked=1>hover</x-element>",
    "<button popovertarget=node onclick=window.hacked=1>press</button>",
    "<dialog open><script>window.hacked=1</script></dialog>",
    "<video><source onerror=window.hacked=1></video>",
    "<table background=javascript:window.hacked=1><tr><td>cell",
    "<plaintext>",
    "<marquee onstart=window.hacked=1>",
    "<id=data><input name=hacked id=hacked>",
    "<form id=node-body><input name=replaceChildren></form>",
    "0",
)


def hostile_strings() -> tuple[str, ...]:
    """A hundred texts that want to be something else."""
    assert len(set(_ATTACKS)) >= 100
    return _ATTACKS[:100]


def hostile_run(run: Path, path: Path) -> Path:
    """A run like `run` in which each of the hundred strings is a prompt and a part of a query, a response, an
    aspect, a rationale, a failure, a dropped proposal, a model, a setting, a digest and a version."""
    copy_of(run, path, without=("alignment.json", "report.html"))
    strings = hostile_strings()
    kept = [text.replace("\ud800", "").replace("\udfff", "") for text in strings]  # files refuse half a pair
    write_examples(
        path / "inputs" / "examples.jsonl",
        [Example(f"query of {text} shot", f"response {text}", "informative") for text in kept],
        overwrite=True,
    )
    events: list[Event] = []
    for number, text in enumerate(strings):
        told = state(text, f"{text} query", f"{text} response", shots=[number], finish_reason=f"{text} end")
        told["evaluation"] = {f"{text} aspect": {"rationale": f"{text} rationale", "score": 3}}
        parent = None if number == 0 else (number - 1) // 10
        depth = 0 if parent is None else 1 if parent == 0 else 2
        events.append(node(number, parent, depth, 3.0, told, failure=f"{text} failure"))
    events += [ProposalDropped(f"r/{text}", 0, f"{text} reason", f"{text} raw") for text in strings]
    events += [LevelDone(0, 3, (0,), False), LevelDone(1, 3, (1,), False), LevelDone(2, 3, (11,), False)]
    set_events(path, [*events, SearchDone(11, 3.0, 100, 3, strings[0])])
    data = json.loads((path / "run.json").read_text(encoding="utf-8"))
    identity = data["identity"]
    identity["models"] |= {f"role {text}": f"model {text}" for text in strings}
    identity["settings"] |= {f"setting {text}": f"value {text}" for text in strings}
    identity["digests"] |= {f"file {text}": f"digest {text}" for text in strings}
    data["versions"] = {f"package {text}": f"version {text}" for text in strings}
    identity["embedder"] = strings[1]
    (path / "run.json").write_text(json.dumps(data), encoding="utf-8")
    return path
