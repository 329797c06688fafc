from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.fixtures.infra import ROOT, Manifest, build_example

_PRESERVE = "x-kubernetes-preserve-unknown-fields"


@pytest.fixture(scope="session")
def example() -> dict[tuple[str, str], Manifest]:
    """The manifests of the example overlay."""
    return build_example()


@pytest.fixture(scope="session")
def check_kuberay() -> Callable[[Manifest], None]:
    """Raises ValidationError where a manifest does not fit KubeRay's resource definitions, where these lie."""
    folder = Path(os.environ.get("TAGSTREAM_KUBERAY_CRDS", ROOT.parent / "shared" / "data" / "kuberay-crds"))
    if not folder.is_dir():
        pytest.skip(f"KubeRay's resource definitions are not at {folder}")
    validators = {}
    for path in folder.glob("*.yaml"):
        definition = yaml.load(path.read_text(), yaml.CSafeLoader)["spec"]
        (schema,) = [version["schema"] for version in definition["versions"] if version["name"] == "v1"]
        closed = _closed(schema["openAPIV3Schema"])
        # The API server knows these of every object.
        closed["properties"]["metadata"] = {"type": "object"}
        validators[definition["names"]["kind"]] = jsonschema.Draft202012Validator(closed)
    return lambda manifest: validators[manifest["kind"]].validate(manifest)


def _closed(schema: Any) -> Any:
    """A structural schema that refuses unknown fields, which the API server drops without a word."""
    if isinstance(schema, list):
        return [_closed(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(inner) for name, inner in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not schema.get(_PRESERVE):
        closed["additionalProperties"] = False
    return closed
