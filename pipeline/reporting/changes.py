"""Which params differ from those that the last run of the stages was made with, by what DVC wrote down of it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.core.layout import Layout

SHOWN = 3
"""At most so many keys are named."""


def changed_since(layout: Layout) -> list[str]:
    """A warning where ``params.yaml`` is not what the last run was made with; otherwise none."""
    keys = changed_params(layout)
    if not keys:
        return []
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return [f"params changed since this run: {', '.join(keys[:SHOWN])}{more}; `dvc repro` runs what they concern"]


def changed_params(layout: Layout) -> list[str]:
    """Keys of ``params.yaml``, in the order of the stages, whose values are others than ``dvc.lock`` has.

    An empty list where either file is missing or unreadable: without DVC nobody wrote down what a run was made with.
    """
    now, lock = _read(layout.params), _read(layout.dvc_lock)
    changed: dict[str, None] = {}
    for stage in _mapping(lock.get("stages")).values():
        then = _mapping(_mapping(_mapping(stage).get("params")).get(layout.params.name))
        for key, value in then.items():
            changed |= dict.fromkeys(_differences(str(key), value, _of(now, str(key))))
    return list(changed) if now else []


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return _mapping(YAML(typ="safe").load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, YAMLError, RecursionError):
        return {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _of(params: Any, key: str) -> Any:
    for part in key.split("."):
        params = _mapping(params).get(part)
    return params


def _differences(key: str, then: Any, now: Any) -> Iterator[str]:
    """The keys below ``key`` at which two values differ, or that only one of them has."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for name in dict.fromkeys([*then, *now]):
            if name in then and name in now:
                yield from _differences(f"{key}.{name}", then[name], now[name])
            else:
                yield f"{key}.{name}"
    elif then != now:
        yield key
