"""What both trainings ask of TRL: devices, checkpoints, seeds, and where a training stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from drpo.config_common import RunConfig
from drpo.config_training import TrainingConfig
from drpo.training.base import Base, device_precision
from drpo.training.library import refuse_without_adapters
from drpo.training.place import Place

_NOT_SETTINGS = {
    *("out", "prompts", "data", "base"),
    *("model", "prompter", "reward", "alignment", "queries", "queries_column", "limit", "format"),
}
Notice = Callable[[str], None]


def common_arguments(config: TrainingConfig, place: Place) -> dict[str, Any]:
    """The arguments that SFTConfig, RLOOConfig and GRPOConfig share."""
    torch = import_module("torch")
    on_gpu = torch.cuda.is_available()
    half = device_precision(config.precision) == torch.bfloat16
    return {
        "output_dir": str(place.checkpoints),
        "per_device_train_batch_size": config.batch,
        "learning_rate": config.learning_rate,  # type: ignore[attr-defined]
        "gradient_accumulation_steps": config.accumulate,  # type: ignore[attr-defined]
        "gradient_checkpointing": config.checkpointing,
        "bf16": half,
        "use_cpu": not on_gpu,
        "dataloader_pin_memory": on_gpu,
        "seed": config.random_seed,
        "data_seed": config.random_seed,
        "save_strategy": "steps",
        "save_steps": config.save_steps,
        "save_total_limit": 1,
        "logging_strategy": "steps",
        "logging_steps": config.log_steps,
        "logging_first_step": True,
        "report_to": "none",
        "disable_tqdm": True,
        # Weights stay in 32 bits where the whole model is trained: small steps vanish in 16.
        "model_init_kwargs": {
            "use_safetensors": True,
            "local_files_only": True,
            "dtype": "bfloat16" if half and config.lora else "float32",
        },
    }


def adapter_of(config: TrainingConfig) -> Any:
    """The settings of a LoRA adapter on all linear layers, None where all weights are trained."""
    if not config.lora:
        return None
    refuse_without_adapters()
    peft = import_module("peft")
    return peft.LoraConfig(
        r=config.lora_rank,
        lora_alpha=2 * config.lora_rank,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def listening(notice: Notice, told: Callable[[Mapping[str, Any], int, int], str]) -> Any:
    """A callback that says where a training stands. told: the words for a log, a step and of how many."""
    transformers: Any = import_module("transformers")

    class Listening(transformers.TrainerCallback):  # type: ignore[misc]
        """Of the process that writes only."""

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if state.is_world_process_zero and logs and "train_runtime" not in logs:
                notice(told(logs, state.global_step, state.max_steps))

    return Listening()


def history_of(trainer: Any, names: Mapping[str, str]) -> list[dict[str, float]]:
    """The figures of the whole training, also of what was trained before it was resumed. names: ours by
    TRL's; a log without any of them is left out."""
    found = []
    for log in trainer.state.log_history:
        figures = {ours: float(log[theirs]) for theirs, ours in names.items() if log.get(theirs) is not None}
        if figures:
            found.append({"step": int(log["step"]), **figures})
    return found


def quiet(trainer: Any) -> None:
    """TRL prints each log to stdout by itself; that is left out."""
    transformers = import_module("transformers")
    trainer.remove_callback(transformers.PrinterCallback)


def train(trainer: Any, place: Place) -> None:
    """Train, from the last checkpoint where there is one."""
    checkpoint = place.last_checkpoint
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))


def save(trainer: Any, base: Base, place: Place, *, lora: bool) -> bool:
    """Write model and tokenizer as safetensors; whether this process is the one that wrote."""
    is_first = bool(trainer.accelerator.is_main_process)
    if lora:
        if is_first:
            merged = trainer.accelerator.unwrap_model(trainer.model).merge_and_unload()
            merged.save_pretrained(str(place.out))
    else:
        trainer.save_model(str(place.out))  # by all: shards of a model come together here
    if is_first:
        for file in place.out.glob("*.safetensors"):
            file.chmod(0o644)  # as the files beside it: a server of another user may read it
        base.tokenizer.save_pretrained(str(place.out))
    return is_first


def rank_of_process() -> tuple[int, int]:
    """Which of how many processes this is, as `accelerate launch` or torchrun has set it."""
    state = import_module("accelerate").PartialState()
    return int(state.process_index), int(state.num_processes)


def end_ids_of(base: Base, folder: Path) -> list[int]:
    """The tokens that end a rewrite."""
    transformers = import_module("transformers")
    try:
        settings = transformers.GenerationConfig.from_pretrained(str(folder), local_files_only=True)
    except OSError:
        return [int(base.tokenizer.eos_token_id)]
    own = settings.eos_token_id
    return (
        [int(base.tokenizer.eos_token_id)]
        if own is None
        else list(own)
        if isinstance(own, list)
        else [int(own)]
    )


def trained_settings(config: TrainingConfig) -> dict[str, Any]:
    """The settings that decide what comes of a training, as plain JSON values, less those that stand in its
    identity as models and digests; those of models that answer only where some do."""
    everything = config.model_dump(mode="json")
    names = set(config.identity_fields()) - _NOT_SETTINGS
    if "model" not in everything:
        names -= set(RunConfig.model_fields) - {"random_seed"}
    elif not any("demo" in str(everything[name]) for name in ("model", "reward")):
        names = {name for name in names if not name.startswith("demo_")}
    return {name: value for name, value in everything.items() if name in names}
