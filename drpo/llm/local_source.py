"""Where transformers reads a model from on this machine: a folder, or the cache of the Hugging Face hub."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from drpo.errors import InputError
from drpo.llm.faults import one_line
from drpo.llm.vllm.local import model_digest

PROBE_S = 10.0
_WEIGHTS = "*.safetensors"
_FILES = (_WEIGHTS, "*.json", "*.txt", "*.model", "*.jinja")


# While it loads, transformers changes torch for the whole process: two models loaded at once, of two runs of
# one study, lost their tied weights.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True, slots=True)
class Manner:
    """How a model is spoken of. kind: what it is. label: what stands before its name. extra: of drpo, that it
    needs. otherwise: what else one can name, behind a comma."""

    kind: str
    label: str
    extra: str
    otherwise: str


LANGUAGE_MODEL = Manner("language model", "local/", "train", "or a server's: vllm/NAME@URL")


@dataclass(slots=True)
class LocalSource:
    """A model by folder, hub name or NAME@REVISION. Raises InputError where a path leads nowhere.

    Weights are read as safetensors only, and code of a repository is never run.
    """

    name: str
    manner: Manner
    folder: Path | None = field(init=False)
    repository: str = field(init=False)
    revision: str | None = field(init=False)

    def __post_init__(self) -> None:
        self.folder = model_folder(self.name, self.manner.label)
        repository, _, revision = (str(self.folder), "", "") if self.folder else self.name.partition("@")
        self.repository, self.revision = repository, revision or None

    @property
    def shown(self) -> str:
        """The name without the place of a folder."""
        return self.folder.name if self.folder else self.name

    @property
    def has_weights(self) -> bool:
        """Whether a folder holds safetensors; a repository is asked when it is fetched."""
        return self.folder is None or any(self.folder.glob(_WEIGHTS))

    def pinned(self) -> str:
        """The folder's own name and a digest of its files, or repository and commit: the same on every
        machine. To be asked once settings were read; what is read later is of that commit."""
        if self.folder:
            return folder_identity(self.folder)
        self.revision = self._commit() or self.revision
        return f"{self.repository}@{self.revision}" if self.revision else self.repository

    def library(self) -> Any:
        """transformers, once torch is known to be there too. InputError where one is missing."""
        try:
            transformers = import_module("transformers")
            import_module("torch")
            import_module("transformers.utils.logging").disable_progress_bar()
        except ImportError as error:
            raise InputError(
                f"{self._named(self.shown)}: transformers and torch are needed and cannot be imported "
                f"({error}). pip install 'drpo[{self.manner.extra}]', {self.manner.otherwise}"
            ) from error
        return transformers

    def read(self, kind: Any, **options: Any) -> Any:
        """What `kind` reads of the model: from the folder or the cache, else from the hub, once."""
        options |= {"revision": self.revision, "trust_remote_code": False}
        try:
            with _ONE_AT_A_TIME:
                return kind.from_pretrained(self.repository, local_files_only=True, **options)
        except Exception as error:  # the library promises no common base
            if self.folder or _is_final(error):
                raise self._unreadable(error) from error
        try:
            self._reach_hub()
            said = f"fetching the {self.manner.kind} {self.repository}, once"
            logging.getLogger(__name__).warning("%s", said)
            with _ONE_AT_A_TIME:
                return kind.from_pretrained(self.repository, **options)
        except InputError:
            raise
        except Exception as error:
            if _is_final(error):
                raise self._unreadable(error) from error
            raise InputError(
                f"{self._named(self.repository)}: neither cached here nor to be had from the Hugging Face "
                f"hub: {one_line(str(error), None)}. Fetch it where there is a network (hf download "
                f"{self.repository}), give the path of its folder, {self.manner.otherwise}"
            ) from error

    def fetched(self) -> Path:
        """The folder with all files of the model: its own, or that of the cache, once fetched."""
        if self.folder:
            return self.folder
        hub = import_module("huggingface_hub")

        class Fetch:
            """As the classes of transformers are asked."""

            @staticmethod
            def from_pretrained(
                name: str, *, revision: str | None, local_files_only: bool = False, **_: Any
            ) -> str:
                found: str = hub.snapshot_download(
                    name, revision=revision, local_files_only=local_files_only, allow_patterns=list(_FILES)
                )
                if not any(Path(found).glob(_WEIGHTS)):
                    raise OSError("no safetensors")
                return found

        folder = Path(self.read(Fetch))
        self.revision = self.revision or self._commit()
        return folder

    def refusal(self, problem: str) -> InputError:
        """The error for a model that is there and cannot be used."""
        return InputError(f"{self._named(self.shown)}: {problem}. Name another one, {self.manner.otherwise}")

    def no_safetensors(self) -> InputError:
        """The error for weights in any other form."""
        return self.refusal(
            "it has no weights as safetensors, and drpo opens no pickles, which may run code. Convert them "
            "(save_pretrained writes safetensors)"
        )

    def no_memory(self) -> InputError:
        """The error for a model that the GPU cannot hold."""
        return self.refusal(
            "it does not fit into the GPU's free memory. Free some, or set CUDA_VISIBLE_DEVICES= for the "
            "processor"
        )

    def _named(self, name: str) -> str:
        return f"{self.manner.label}{name}"

    def _commit(self) -> str | None:
        """The commit that the settings were read of, by where the cache keeps them."""
        hub = import_module("huggingface_hub")
        path = hub.try_to_load_from_cache(self.repository, "config.json", revision=self.revision)
        return Path(path).parent.name if isinstance(path, str) else None

    def _reach_hub(self) -> None:
        """Raise at once where the hub is out of reach, or the repository has no safetensors."""
        hub = import_module("huggingface_hub")
        info = hub.HfApi().model_info(self.repository, revision=self.revision, timeout=PROBE_S)
        if not any(file.rfilename.endswith(".safetensors") for file in info.siblings or ()):
            raise self.no_safetensors()

    def _unreadable(self, error: Exception) -> InputError:
        if isinstance(error, OSError) and "safetensors" in str(error):
            return self.no_safetensors()
        if _is_final(error):
            return self.refusal("it needs code of its own to be run, which drpo never does")
        return self.refusal(f"it cannot be read as a {self.manner.kind}: {one_line(str(error), None)}")


def model_folder(name: str, label: str) -> Path | None:
    """The folder that `name` means, None where it is a repository's name; InputError, which begins with
    `label`, where it is a path and nothing is there."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if name.startswith((".", "~", "/")) or name.count("/") > 1 or not name.strip():
        raise InputError(f"{label}{name}: expected a folder, there is none. Check the path")
    return None


def local_identity(name: str) -> str:
    """What tells the language model `name` apart, no library being asked: NAME#DIGEST of a folder, else the
    repository as it was named. InputError where a path leads nowhere."""
    folder = model_folder(name, LANGUAGE_MODEL.label)
    return folder_identity(folder) if folder else name


def folder_identity(folder: Path) -> str:
    """NAME#DIGEST: a model in a folder is known by its files and not by where it stands."""
    return f"{folder.name}#{model_digest(folder)}"


def _is_final(error: Exception) -> bool:
    """Said of what was found: the hub would not help."""
    return isinstance(error, ValueError) and "trust_remote_code" in str(error)
