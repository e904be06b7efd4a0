"""JSON as RFC 8259 has it: one value a key, no NaN, no text that UTF-8 cannot hold.

The standard library's parser, because it shows both values of a key that stands twice; orjson and its like keep the
last one unasked, and reserve several times the text's size before they begin.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from xtuner_core.data.reading.faults import Fault


def parse(text: str) -> Any:
    r"""The value of a JSON text.

    Takes memory for the text once more, three times where it has escapes (`\n`).

    :raises Fault: it is no JSON, names a key twice, or holds NaN, Infinity or a lone surrogate.
    """
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        if text.strip() in ("[", "{"):
            raise Fault("not JSON (a value over several lines; one object a line is wanted)") from error
        raise Fault(f"not JSON ({error.msg} at column {error.colno})") from error
    except RecursionError as error:
        raise Fault("not readable: nested too deeply") from error
    except Fault:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise Fault(f"not readable: {error}") from error
    if "\\ud" in text or "\\uD" in text:
        _refuse_surrogates(value)
    return value


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise Fault(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return found


def _constant(name: str) -> None:
    raise Fault(f"{name} is no JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant)


def _refuse_surrogates(value: Any) -> None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Fault(f"a text holds half a character, the lone surrogate \\u{ord(value[error.start]):04x}") from None
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_surrogates(key)
            _refuse_surrogates(item)
    elif isinstance(value, list):
        for item in value:
            _refuse_surrogates(item)
