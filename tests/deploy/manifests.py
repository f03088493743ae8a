"""The Kubernetes documents of deploy/, and the schemas of kinds that operators define."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
SCHEMAS = ROOT.parent / "shared" / "schemas"

Document = Mapping[str, Any]


@cache
def documents() -> dict[str, dict[str, Any]]:
    """Every document of every manifest, by path, kind and name. Shared: not to be changed."""
    found = {}
    for path in sorted(DEPLOY.rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if "kind" in document:
                name = document.get("metadata", {}).get("name", "")
                found[f"{path.relative_to(DEPLOY)}:{document['kind']}:{name}"] = document
    return found


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {where: each for where, each in documents().items() if each["kind"] == kind}


@cache
def validators() -> dict[tuple[str, str], jsonschema.Draft7Validator]:
    """By apiVersion and kind; empty where there are no schemas."""
    found = {}
    for path in SCHEMAS.glob("*/*.json"):
        schema = json.loads(path.read_text())
        key = schema["properties"]["apiVersion"]["const"], schema["properties"]["kind"]["const"]
        found[key] = jsonschema.Draft7Validator(schema)
    return found


def errors(document: Document) -> list[str]:
    """What the schema of its kind has against it."""
    validator = validators()[document["apiVersion"], document["kind"]]
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


def pod_specs() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod template's spec, with where it stands."""
    for where, document in documents().items():
        spec = document.get("spec", {})
        if document["kind"] in ("Deployment", "StatefulSet"):
            yield where, spec["template"]["spec"]
        elif document["kind"] == "RayJob":
            cluster = spec["rayClusterSpec"]
            for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
                name = group.get("groupName", "head")
                yield f"{where}:{name}", group["template"]["spec"]


def containers() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Where, the container, and the pod's spec."""
    for where, pod in pod_specs():
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            yield f"{where}:{container['name']}", container, pod


_UNITS = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2.0**10, "Mi": 2.0**20}
_UNITS |= {"Gi": 2.0**30, "Ti": 2.0**40}


def amount(quantity: str | int) -> float:
    """A Kubernetes quantity as a number: 500m is 0.5, 1Ki is 1024."""
    text = str(quantity)
    digits = text.rstrip("KMGTikm")
    return float(digits) * _UNITS[text[len(digits) :]]
