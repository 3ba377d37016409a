"""Encoders, and soft tokens: how a language model reads what an encoder says.

An encoder turns items (nodes of a graph, places, legal cases) into vectors; `SavedEncoder` gives it one way to disk.
`SoftTokens` puts such vectors into a decoder where a prompt names their items:

    table = VectorTable.of(encoder, ["17", "404"])
    model = SoftTokens.from_decoder("some/model", table, projector="mlp")
    renderer = model.renderer(tokenizer)
    rows = encode_rows([{"prompt": f"Would {soft('17')} trust {soft('404')}?", "response": "yes"}], renderer)
    fit(model, SupervisedObjective(), rows, ...)
    HFGenerator(model, tokenizer, renderer).generate([f"Would {soft('404')} trust {soft('17')}?"], ...)

`saved` is disk, `table` the vectors of named items, `placeholders` text to ids, `soft_tokens` ids to embeddings. What
needs transformers is loaded when asked for: a tool that only reads a saved encoder starts without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tasks.encoder.saved import SavedEncoder
from tasks.encoder.table import VectorTable

if TYPE_CHECKING:
    from tasks.encoder.placeholders import SoftRenderer, soft
    from tasks.encoder.soft_tokens import SoftTokens, SoftTokensConfig

__all__ = ["SavedEncoder", "SoftRenderer", "SoftTokens", "SoftTokensConfig", "VectorTable", "soft"]

_HOME = {
    "SoftRenderer": "placeholders",
    "SoftTokens": "soft_tokens",
    "SoftTokensConfig": "soft_tokens",
    "soft": "placeholders",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
