"""JSON as RFC 8259 means it.

Refuses doubled names (parsers disagree on which one counts), bytes that are not UTF-8, and depth bombs. NaN and the
infinities pass, for no field takes them: so the refusal can name the field.
"""

import json
from collections.abc import Mapping
from typing import Any

from memory.exceptions import InvalidJSON


def strict_json(body: bytes) -> Any:
    """The value of a JSON text in UTF-8. Raises InvalidJSON, which says where it is wrong and repeats nothing of it."""
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError:
        raise InvalidJSON("The body is not UTF-8.") from None
    except json.JSONDecodeError as error:
        raise InvalidJSON(f"The body is not JSON: line {error.lineno}, column {error.colno}.") from None
    except RecursionError:
        raise InvalidJSON("The body is nested too deeply.") from None
    except InvalidJSON:
        raise
    except ValueError:  # Python refuses integers of thousands of digits
        raise InvalidJSON("A number in the body is too long.") from None


def _unique(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise InvalidJSON("An object in the body has the same name twice.")
    return members
