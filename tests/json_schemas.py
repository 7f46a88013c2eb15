"""The JSON Schema of each form, written from the tables of SCHEMAS.md: one source for people and for programs."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "engine" / "sftscope" / "schemas"
Field = tuple[str, ...]  # the keys down to it; a list's entries are under "[]"
DRAFT = "https://json-schema.org/draft/2020-12/schema"
PAGE = ROOT / "engine" / "SCHEMAS.md"
_FORM = re.compile(
    r"\n## (?P<name>\w+)\n\n(?P<about>.*?schema `(?P<schema>[\w-]+)`, version (?P<version>\d+)\..*?)\n\n"
)
_TYPES = {"text": "string", "integer": "integer", "number": "number", "boolean": "boolean", "object": "object"}
_LISTS = {"list over the steps": "number", "list of texts": "text", "list of pairs": "number", "any": ""}


def json_schemas() -> dict[str, dict[str, Any]]:
    """By form: its JSON Schema."""
    page = PAGE.read_text(encoding="utf-8")
    return {found["name"]: _schema(page, found) for found in _FORM.finditer(page)}


def _schema(page: str, form: re.Match[str]) -> dict[str, Any]:
    name, version = form["name"], int(form["version"])
    record = _object(_rows(page, name))
    record["properties"] = {
        "schema": {"const": form["schema"]},
        "version": {"const": version},
        **record.get("properties", {}),
    }
    record["required"] = ["schema", "version", *record.get("required", [])]
    waiting, parts = [*_links(record)], {}
    while waiting:
        part = waiting.pop()
        if part not in parts:
            parts[part] = _object(_rows(page, part.replace("-", " ")))
            waiting += _links(parts[part])
    body = {"type": "array", "items": record} if "a list, one record" in form["about"] else record
    about = {"$schema": DRAFT, "$id": f"{form['schema']}-{version}", "title": _plain(form["about"])}
    return about | body | ({"$defs": dict(sorted(parts.items()))} if parts else {})


def _rows(page: str, heading: str) -> Iterator[tuple[Field, dict[str, Any], bool]]:
    """Of each field of a table: the keys down to it, its schema, and whether it is always there."""
    table = re.split(rf"\n##+ {heading}\n", page)[1].partition("\n#")[0]
    for line in table.splitlines():
        if line.startswith("| `"):
            names, kind, meaning = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:4])
            fields = re.findall(r"`([^`]+)`", names)
            kinds = kind.split(", ") if kind.count(", ") == len(fields) - 1 else [kind] * len(fields)
            for name, each in zip(fields, kinds, strict=True):
                keys = tuple(re.findall(r"\[\]|[^.\[\]]+", name))
                leaf = _leaf(each.removeprefix("optional "))
                yield keys, leaf | {"description": _plain(meaning)}, not each.startswith("optional ")


def _leaf(kind: str) -> dict[str, Any]:
    kind, null = kind.removesuffix(" or null"), kind.endswith(" or null")
    if link := re.search(r"\(#([\w-]+)\)", kind):
        to = {"$ref": f"#/$defs/{link[1]}"}
        return {"anyOf": [to, {"type": "null"}]} if null else to
    kind = re.sub(r"^lists", "list", kind.replace("integers over the steps", "integers"))
    kind = _LISTS.get(kind, kind.removesuffix("s"))
    if not kind:
        return {}
    name = _TYPES[kind]
    return {"type": [name, "null"] if null or name == "number" else name}  # an undefined number is null


def _object(rows: Iterator[tuple[Field, dict[str, Any], bool]]) -> dict[str, Any]:
    root: dict[str, Any] = {"type": "object"}
    for keys, leaf, always in rows:
        node = root
        for key in keys:
            node = _child(node, key, always)
        description = leaf.pop("description")
        if node.get("type") == "object" and leaf.get("type") == ["object", "null"]:
            node["type"] = leaf["type"]
        node.update(leaf if "properties" not in node else {})
        node.setdefault("description", description)
    return root


def _child(node: dict[str, Any], key: str, required: bool) -> dict[str, Any]:
    """The schema of what is under a key; "[]" for the entries of a list, "*" and "**" for any key."""
    if key == "[]":
        node["type"] = "array"
        return node.setdefault("items", {})
    node.setdefault("type", "object")
    if key in ("*", "**"):
        return node.setdefault("additionalProperties", {})
    if required and key not in node.get("properties", {}):
        node.setdefault("required", []).append(key)
    return node.setdefault("properties", {}).setdefault(key, {})


def _links(schema: Any) -> list[str]:
    """The parts that a schema refers to."""
    if isinstance(schema, Mapping):
        own = [schema["$ref"].rpartition("/")[2]] if "$ref" in schema else []
        return own + [name for value in schema.values() for name in _links(value)]
    if isinstance(schema, Sequence) and not isinstance(schema, str):
        return [name for value in schema for name in _links(value)]
    return []


def _plain(text: str) -> str:
    """Without the marks of Markdown."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("`", "").replace("\\|", "|")
