"""JSON Schemas of the config spaces: what a config may hold, and the class default of what it leaves out.

Configs are often diffs: a field that is absent means the default of its class, which is not the same as null. The
schemas in `schemas/` hold those defaults, so that tables need none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import resources
from typing import Any

from mmconvert.excerpt import excerpt

JSON = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Schema:
    """One schema document."""

    name: str
    document: JSON

    def complete(self, config: Any, path: str = "") -> Any:
        """The config with class defaults filled in, at every depth. Raises ValueError naming a field that is wrong."""
        problem = self.problem(config)
        if problem is not None:
            where, message = problem
            inner = ".".join(filter(None, (path, where)))
            raise ValueError(f"{inner}: {message}" if inner else message)
        return self._filled(config, self.document)

    def problem(self, config: Any) -> tuple[str, str] | None:
        """The first thing that the schema holds against a config: (path, message), or None."""
        from jsonschema.exceptions import best_match

        error = best_match(_validator()(self.document).iter_errors(config))
        if error is None:
            return None
        path = [*map(str, error.absolute_path)]
        if error.validator == "additionalProperties":
            known = error.schema.get("properties", {})
            name = next(name for name in error.instance if name not in known)
            # YAML keys need not be text.
            near = get_close_matches(str(name), known, n=1)
            return ".".join([*path, excerpt(name)]), "no such field" + (f"; did you mean {near[0]}?" if near else "")
        # Most messages begin with the value, however long it is.
        message = error.message.replace(repr(error.instance), excerpt(repr(error.instance)), 1)
        return ".".join(path), message.partition("\n")[0][:200]

    def default(self, path: str) -> Any:
        """The class default of the field at a path; None where there is none."""
        return self._at(path).get("default")

    def choices(self, path: str) -> tuple[Any, ...]:
        """The values that the field at a path is limited to; empty where it is not limited to a list."""
        return tuple(self._at(path).get("enum", ()))

    def is_deprecated(self, path: str) -> bool:
        return bool(self._at(path).get("deprecated"))

    def without_deprecated(self, config: JSON) -> tuple[dict[str, Any], list[str]]:
        """The config without the fields that are deprecated, at every depth, and their paths."""
        paths: list[str] = []

        def kept(value: Any, node: JSON, path: str) -> Any:
            node = self._resolve(node)
            if isinstance(value, list):
                return [kept(item, node.get("items", {}), f"{path}.{at}") for at, item in enumerate(value)]
            if not isinstance(value, Mapping):
                return value
            result = {}
            for name, item in value.items():
                inner = node.get("properties", {}).get(name, {})
                if inner.get("deprecated"):
                    paths.append(f"{path}.{name}".removeprefix("."))
                else:
                    result[name] = kept(item, inner, f"{path}.{name}")
            return result

        result: dict[str, Any] = kept(config, self.document, "")
        return result, paths

    def _at(self, path: str) -> JSON:
        node: JSON = self.document
        for name in path.split(".") if path else ():
            node = self._resolve(node)
            node = node.get("items", {}) if name.isdigit() else node.get("properties", {}).get(name, {})
        return node

    def _resolve(self, node: JSON) -> JSON:
        while "$ref" in node:
            target: Any = self.document
            for name in node["$ref"].removeprefix("#/").split("/"):
                target = target[name]
            node = target
        return node

    def _filled(self, config: Any, node: JSON) -> Any:
        node = self._resolve(node)
        if isinstance(config, list):
            return [self._filled(item, node.get("items", {})) for item in config]
        if not isinstance(config, Mapping):
            return config
        properties = node.get("properties", {})
        filled = dict(self._defaults(properties))
        filled.update({name: self._filled(value, properties.get(name, {})) for name, value in config.items()})
        return filled

    @staticmethod
    def _defaults(properties: JSON) -> Iterator[tuple[str, Any]]:
        for name, node in properties.items():
            if "default" in node and not node.get("deprecated"):
                yield name, json.loads(json.dumps(node["default"]))


@cache
def _validator() -> Any:
    """JSON Schema 2020-12, but for 2.0, which it takes for an integer: a size must be one in Python too."""
    from jsonschema import Draft202012Validator, validators

    def is_integer(checker: Any, value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool)

    checker = Draft202012Validator.TYPE_CHECKER.redefine("integer", is_integer)
    return validators.extend(Draft202012Validator, type_checker=checker)  # type: ignore[no-untyped-call]


@cache
def load(*names: str) -> Schema:
    """The schema of this name from `schemas/`; of several, the properties of the later ones win."""
    documents = [_document(name) for name in names]
    merged = {
        **documents[0],
        "properties": {key: node for each in documents for key, node in each["properties"].items()},
    }
    return Schema("+".join(names), merged)


def _document(name: str) -> dict[str, Any]:
    text = resources.files("mmconvert.schemas").joinpath(f"{name}.json").read_text("utf-8")
    document: dict[str, Any] = json.loads(text)
    return document
