"""What requests share from their beginning, as far as a server's prefix cache is concerned."""

from __future__ import annotations

import hashlib

from drpo.llm.base import Request

CHUNK = 256
"""Characters between two marks: 50 to 80 tokens, half of vLLM's largest cache block (128 on a CPU)."""


def prefix_text(request: Request) -> str:
    """The text that a model reads for `request`, in order: requests that begin alike have texts that do.

    A chat's messages stand behind marks of their roles, as any chat template puts them; which marks is of no
    matter, since nobody but drpo reads them.
    """
    if request.prompt is not None:
        return request.prompt
    return "".join(f"<{message.role}>\n{message.content}\n" for message in request.messages)


def marks(text: str) -> tuple[bytes, ...]:
    """One digest of 8 bytes per begun chunk of `text`, of everything up to the chunk's end.

    Two texts have as many first marks in common as they share whole chunks from their beginning. The same on
    every machine and in every process, unlike `hash`.
    """
    so_far = hashlib.blake2b(digest_size=8)
    found = []
    for start in range(0, len(text), CHUNK):
        so_far.update(text[start : start + CHUNK].encode("utf-8", "surrogatepass"))
        found.append(so_far.digest())
    return tuple(found)
