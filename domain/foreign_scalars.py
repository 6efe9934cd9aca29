"""Numbers of NumPy, PyTorch and the like, told by how they look, since none of these is imported here."""

from typing import Any

_PLAIN = (bool, int, float, complex, str, bytes)


def plain_scalar(value: Any) -> Any:
    """Return the Python number of a scalar such as ``numpy.float32(1.5)``; anything else as it is."""
    if type(value) in _PLAIN or isinstance(value, type) or getattr(value, "shape", None) != ():
        return value
    if not hasattr(value, "dtype"):
        return value
    plain = value.item()
    return plain if type(plain) in _PLAIN else value


def plain_scalars(value: Any) -> Any:
    """Do so in dicts, lists and tuples; return ``value`` itself if there is nothing to do."""
    if isinstance(value, dict):
        made = {key: plain_scalars(item) for key, item in value.items()}
        return made if any(made[key] is not item for key, item in value.items()) else value
    if type(value) is list or type(value) is tuple:
        items = [plain_scalars(item) for item in value]
        changed = any(new is not old for new, old in zip(items, value, strict=True))
        return type(value)(items) if changed else value
    return plain_scalar(value)
