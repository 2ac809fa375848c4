"""Settings: where they come from, which of them decide the run, and what is said about a wrong one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from drpo.config import INITIAL_PROMPT, PUBLISHED, CommonConfig, ExamplesConfig, OptimizeConfig, flag
from drpo.errors import InputError
from drpo.options import settings_flags
from drpo.settings import parse_overrides, resolve

KINDS = (OptimizeConfig, ExamplesConfig)

# A new setting has to be put on one of the two sides: does it change requests, or the choice among them?
NOT_IDENTITY = {
    *("preset", "demo_latency_ms", "concurrency", "timeout_s", "deadline_s", "reuse"),
    *("runs_dir", "name", "run_dir", "roles", "out"),
    *("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "vllm_arg", "vllm_command"),
    *("vllm_ready_s", "vllm_restarts"),
    *("max_calls", "max_usd", "price", "report", "track"),
}
IDENTITY = {
    *("model", "base_model", "optimizer", "evaluator", "selector", "reward", "evaluations"),
    "evaluation_aspects",
    *(
        "unreadable",
        "repairs",
        "structured",
        "optimizer_temperature",
        "optimizer_top_p",
        "max_tokens",
        "patience",
    ),
    *("random_seed", "prompts", "demo_seed", "demo_noise", "search", "width", "samples", "depth"),
    *("max_extra_depth", "shots", "path_score", "keep_above", "initial_prompt", "protect", "seeds"),
    *("seeds_column", "order", "examples", "embedder", "prompt_form", "base_max_tokens"),
    *("queries_per_level", "validate", "candidates", "max_prompt_tokens", "safety"),
    *("answer_end", "long_prompts", "max_thinking_tokens"),
}
# Settings of a search that SEMANTICS of the published runs says nothing about.
NOT_PUBLISHED = {
    *("model", "optimizer", "evaluator", "selector", "random_seed"),
    *("prompts", "demo_seed", "demo_noise", "seeds", "seeds_column", "order", "examples"),
    *("embedder", "prompt_form", "candidates", "safety"),
}


def optimize(given: dict[str, Any] | None = None, **environment: str) -> OptimizeConfig:
    return resolve(OptimizeConfig, {"model": "demo", **(given or {})}, environment)


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_is_classified(kind: type[CommonConfig]) -> None:
    names = set(kind.model_fields)
    assert names <= NOT_IDENTITY | IDENTITY, names - NOT_IDENTITY - IDENTITY
    assert set(kind.identity_fields()) == names & IDENTITY


def test_every_setting_of_the_search_is_published_or_known_not_to_be() -> None:
    assert set(PUBLISHED) | NOT_PUBLISHED == set(OptimizeConfig.identity_fields())
    assert not set(PUBLISHED) & NOT_PUBLISHED


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_is_described_and_is_a_flag(kind: type[CommonConfig]) -> None:
    @click.command()
    @settings_flags(kind)
    def command(**given: Any) -> None:
        assert set(given) == set(kind.model_fields) - {"roles"}
        assert {name: value for name, value in given.items() if value is not None} == {}

    assert all(field.description for field in kind.model_fields.values())
    flags = {option for parameter in command.params for option in parameter.opts}
    assert flags == {flag(name) for name in kind.model_fields if name != "roles"}
    assert CliRunner().invoke(command, [], catch_exceptions=False).exit_code == 0


def test_flags_arrive_typed() -> None:
    found: dict[str, Any] = {}

    @click.command()
    @settings_flags(OptimizeConfig)
    def command(**given: Any) -> None:
        found.update({name: value for name, value in given.items() if value is not None})

    line = "--model demo --width 5 --keep-above 4 --no-reuse --protect help --protect ful"
    line += " --run-dir x --order given"
    CliRunner().invoke(command, line.split(), catch_exceptions=False)
    config = resolve(OptimizeConfig, found, {})
    assert (config.width, config.keep_above, config.reuse, config.order) == (5, 4.0, False, "given")
    assert (found["protect"], config.run_dir) == (("help", "ful"), Path("x"))
    assert CliRunner().invoke(command, ["--order", "random"]).exit_code == 2
    assert "[default: 3]" in CliRunner().invoke(command, ["--help"]).output


def test_flag_before_environment_before_file_before_preset_before_default(tmp_path: Path) -> None:
    file = tmp_path / "drpo.toml"
    file.write_text('samples = 7\ndepth = 7\npreset = "published"\nmax-extra-depth = 7\n', encoding="utf-8")
    environment = {"DRPO_WIDTH": "6", "DRPO_SAMPLES": "6", "DRPO_MAX_EXTRA_DEPTH": "6"}
    given = {"model": "demo", "width": 5, "samples": None, "shots": None}
    config = resolve(OptimizeConfig, given, environment, file)
    assert (config.width, config.samples, config.max_extra_depth, config.depth) == (5, 6, 6, 7)
    assert (config.repairs, config.unreadable, config.evaluation_aspects) == (0, "zero", "returned")
    assert (config.shots, config.concurrency) == (2, 64)


def test_a_preset_given_as_a_flag_beats_the_environment_and_yields_to_flags() -> None:
    assert optimize({"preset": "published"}).repairs == 0
    assert optimize({"preset": "published", "repairs": 2}).repairs == 2
    assert optimize({"preset": "published"}, DRPO_REPAIRS="3").repairs == 0
    assert optimize(DRPO_PRESET="published", DRPO_REPAIRS="3").repairs == 3
    assert optimize().repairs == 1
    examples = resolve(ExamplesConfig, {"preset": "published"}, {})
    assert (examples.width, examples.samples, examples.depth, examples.repairs) == (1, 1, 5, 0)


def test_a_file_serves_both_commands_and_may_be_written_either_way(tmp_path: Path) -> None:
    file = tmp_path / "drpo.toml"
    file.write_bytes(b"\xef\xbb\xbfkeep_above = 4\r\nmax-extra-depth = 3\r\nout = 'x'\r\n")
    assert resolve(OptimizeConfig, {"model": "demo"}, {}, file).max_extra_depth == 3
    assert resolve(ExamplesConfig, {}, {}, file).out == Path("x")


def test_models_of_roles_in_a_file_yield_to_whatever_is_nearer(tmp_path: Path) -> None:
    file = tmp_path / "drpo.toml"
    file.write_text(
        '[roles.base]\nmodel = "demo"\n[roles.optimizer]\nmodel = "openai/a"\napi_key_env = "MY_KEY"\n'
        '[roles.evaluator]\nmodel = "openai/b"\n',
        encoding="utf-8",
    )
    config = resolve(OptimizeConfig, {"evaluator": "openai/c"}, {}, file)
    assert (config.model, config.optimizer, config.evaluator) == ("demo", "openai/a", "openai/c")
    assert config.roles["optimizer"].api_key_env == "MY_KEY"
    assert resolve(OptimizeConfig, {}, {"DRPO_OPTIMIZER": "openai/d"}, file).optimizer == "openai/d"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"Be kind.\n", "Be kind."),
        (b"\xef\xbb\xbfBe\r\nkind.\r\n\r\n", "Be\nkind."),
        (b"  - {{7*7}}\n", "  - {{7*7}}"),
    ],
)
def test_a_text_may_stand_in_a_file(tmp_path: Path, data: bytes, expected: str) -> None:
    (tmp_path / "prompt.txt").write_bytes(data)
    at = f"@{tmp_path / 'prompt.txt'}"
    assert optimize({"initial_prompt": at}).initial_prompt == expected
    assert optimize({"initial_prompt": at, "protect": (at,)}).protect == (expected,)
    assert optimize({"initial_prompt": at}, DRPO_PROTECT=at).protect == (expected,)


def test_one_protected_text_needs_no_list() -> None:
    assert optimize({"protect": "helpful"}).protect == ("helpful",)
    assert optimize().initial_prompt == INITIAL_PROMPT


WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"width": 0}, r"--width .*greater than or equal to 1.*'0'"),
    ({"width": "two"}, r"--width .*integer.*'two'"),
    ({"depth": "x\ny"}, r"--depth .*came 'x\\ny'"),
    ({"search": "beem"}, r"--search .*'beam', 'greedy' or 'monte-carlo'.*'beem'"),
    ({"keep_above": float("nan")}, r"--keep-above .*'nan'"),
    ({"optimizer_top_p": 0}, r"--optimizer-top-p .*'0'"),
    ({"preset": "paper"}, r"--preset .*'published'.*'paper'"),
    ({"initial_prompt": ""}, r"--initial-prompt .*came ''"),
    ({"initial_prompt": "@missing.txt"}, r"--initial-prompt @missing\.txt: no such file"),
    ({"initial_prompt": "@."}, r"--initial-prompt @\.: expected a text file"),
    ({"initial_prompt": "\udcff"}, r"--initial-prompt .*unicode"),
    ({"protect": ("not there",)}, r"--protect: .*does not contain the protected text 'not there'"),
    ({"protect": (" ",)}, r"--protect: expected a text, came a blank one"),
    ({"widht": 3}, r"unknown setting 'widht'; did you mean 'width'\?"),
    ({"zzz": 3}, r"unknown setting 'zzz'$"),
    ({"name": "../up"}, r"--name .*inside the runs folder; use --run-dir.*'\.\./up'"),
    *(
        ({"name": name}, r"--name .*came")
        for name in ("..", ".", "a/b", "a\\b", "", " ", "c:x", "a\nb", "a\0")
    ),
)


@pytest.mark.parametrize(("given", "said"), WRONG, ids=[str(given) for given, _ in WRONG])
def test_a_wrong_setting_is_told_in_one_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        optimize(given)
    assert "\n" not in str(caught.value)


def test_a_wrong_variable_is_told_by_both_names() -> None:
    with pytest.raises(InputError, match=r"--max-extra-depth \(or DRPO_MAX_EXTRA_DEPTH\): .*came 'many'"):
        optimize(DRPO_MAX_EXTRA_DEPTH="many")


def test_a_missing_model_is_told_with_what_it_is() -> None:
    with pytest.raises(InputError, match=r"^--model is missing: The base model"):
        resolve(OptimizeConfig, {}, {})


def test_a_protected_text_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"--protect @.*x\.txt: expected a text file in UTF-8"):
        optimize({"protect": (f"@{tmp_path / 'x.txt'}",)})


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"max-extra-dept = 3", r"unknown setting 'max-extra-dept'; did you mean 'max-extra-depth'"),
        (b"width = = 3", r"expected TOML in UTF-8: .*line 1"),
        (b"\xff", r"expected TOML in UTF-8"),
        (b"[roles.critic]\nmodel = 'demo'", r"\[roles\.critic\] in the --config file: .*'optimizer'"),
        (b"[roles.base]\nkey = 'x'", r"\[roles\.base\.key\] in the --config file"),
        (b"roles = 5", r"\[roles\] in the --config file"),
    ],
)
def test_a_wrong_file_is_told_in_one_line(tmp_path: Path, data: bytes, said: str) -> None:
    file = tmp_path / "drpo.toml"
    file.write_bytes(data)
    with pytest.raises(InputError, match=said) as caught:
        resolve(OptimizeConfig, {"model": "demo"}, {}, file)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--config .*none\.toml: no such file"):
        resolve(OptimizeConfig, {"model": "demo"}, {}, tmp_path / "none.toml")


def test_a_key_where_its_variable_belongs_is_refused_and_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "drpo.toml"
    file.write_text('[roles.optimizer]\napi_key_env = "sk-very-secret"\n', encoding="utf-8")
    with pytest.raises(InputError, match="name of an environment variable") as caught:
        resolve(OptimizeConfig, {"model": "demo"}, {}, file)
    assert "secret" not in str(caught.value)


def test_overrides_are_names_and_values() -> None:
    found = parse_overrides(["width=3", "keep-above = 4", "initial_prompt=a=b"])
    assert found == {"width": "3", "keep_above": "4", "initial_prompt": "a=b"}
    for wrong in ("width", "=3", " =3"):
        with pytest.raises(InputError, match="expected NAME=VALUE"):
            parse_overrides([wrong])


def test_a_misspelt_variable_is_refused_and_a_stranger_is_not() -> None:
    with pytest.raises(InputError, match="DRPO_WIDHT: no setting has this name; did you mean DRPO_WIDTH"):
        optimize(DRPO_WIDHT="3")
    assert optimize(DRPO_ELSEWHERE="3").width == 2


def test_a_blank_initial_prompt_is_refused() -> None:
    with pytest.raises(InputError, match="initial-prompt: expected a text"):
        optimize({"initial_prompt": " "})
