"""Errors that say that memory ran out: Python's, and those of the libraries that compute on a GPU."""

from ..failures.handler_errors import describe

_NAMES = frozenset({"OutOfMemoryError", "ResourceExhaustedError"})
"""Classes of PyTorch (``torch.cuda.OutOfMemoryError``), CuPy and TensorFlow."""
_LIBRARIES = frozenset({"torch", "cupy", "cupy_backends", "numba", "pycuda", "jax", "jaxlib", "onnxruntime"})
"""What raises errors of its own whose message alone tells; PyTorch also raises a plain ``RuntimeError``."""
_MESSAGES = ("out of memory", "out_of_memory", "resource_exhausted", "alloc_failed", "failed to allocate")
_CAUSES = 5
"""How far the causes of an error are followed, which programs wrap in errors of their own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error``, or what it was raised from, says that memory ran out.

    No library is imported for that: classes are known by name, module and message.
    """
    cause: BaseException | None = error
    for _ in range(_CAUSES):
        if cause is None:
            return False
        if _says_so(cause):
            return True
        cause = cause.__cause__
    return False


def _says_so(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    classes = type(error).__mro__
    if any(cls.__name__ in _NAMES for cls in classes):
        return True
    is_of_library = any(cls.__module__.partition(".")[0] in _LIBRARIES for cls in classes)
    if not is_of_library and type(error) is not RuntimeError:
        return False
    message = describe(error).lower()
    return any(words in message for words in _MESSAGES)
