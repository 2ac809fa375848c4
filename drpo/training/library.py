"""The libraries of the extra `train`, quiet and once they are needed."""

from __future__ import annotations

import os
import warnings
from importlib import import_module
from typing import Any

from drpo.errors import InputError


def training_library() -> Any:
    """TRL, once torch, transformers, datasets and accelerate are known to be there too. Else InputError.

    What they print by themselves is left out: they mean developers, and drpo says where a training stands.
    """
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        for name in ("torch", "transformers", "datasets", "accelerate"):
            import_module(name)
        trl = import_module("trl")
    except ImportError as error:
        raise InputError(
            f"training needs TRL with torch and transformers, which cannot be imported ({error}). "
            "pip install 'drpo[train]'"
        ) from error
    logs = import_module("transformers.utils.logging")
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    import_module("datasets").disable_progress_bars()
    warnings.filterwarnings("ignore", module=r"(trl|transformers|torch|accelerate|datasets|peft)(\..*)?$")
    return trl


def refuse_without_adapters() -> None:
    """InputError where LoRA was asked for and its library is not there."""
    try:
        import_module("peft")
    except ImportError as error:
        raise InputError(
            f"--lora: needs peft, which cannot be imported ({error}). pip install 'drpo[train]'"
        ) from error
