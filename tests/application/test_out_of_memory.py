"""What counts as memory that ran out, and what is learned from it."""

import pytest

from mindtrace.jobs.application.consuming.batch_size_limit import BatchSizeLimit
from mindtrace.jobs.application.consuming.out_of_memory_errors import is_out_of_memory


def error_of(library: str, name: str, base: type[Exception], message: str = "") -> Exception:
    """An error of a library that isn't installed, as that raises it."""
    error: Exception = type(name, (base,), {"__module__": library})(message)
    return error


def caused_by(cause: BaseException) -> Exception:
    error = ValueError("no inference")
    error.__cause__ = cause
    return error


class Unspeakable(RuntimeError):
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        error_of("numpy._core._exceptions", "_ArrayMemoryError", MemoryError),
        error_of("torch", "OutOfMemoryError", RuntimeError, "CUDA out of memory. Tried to allocate 2.00 GiB"),
        error_of("torch.cuda", "OutOfMemoryError", RuntimeError),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported asynchronously"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.8 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
        error_of("torch", "AcceleratorError", RuntimeError, "CUDA error: out of memory"),
        error_of("cupy.cuda.memory", "OutOfMemoryError", MemoryError),
        error_of("cupy_backends.cuda.api.runtime", "CUDARuntimeError", RuntimeError, "…: out of memory"),
        error_of("tensorflow.python.framework.errors_impl", "ResourceExhaustedError", Exception, "OOM when"),
        error_of("jaxlib._jax", "XlaRuntimeError", RuntimeError, "RESOURCE_EXHAUSTED: Out of memory while"),
        error_of("numba.cuda.cudadrv.driver", "CudaAPIError", Exception, "CUDA_ERROR_OUT_OF_MEMORY"),
        error_of("onnxruntime.capi", "RuntimeException", Exception, "Failed to allocate memory for buffer"),
        caused_by(MemoryError()),
        caused_by(caused_by(RuntimeError("CUDA out of memory."))),
    ],
    ids=lambda error: f"{type(error).__module__}.{type(error).__name__}",
)
def test_memory_that_ran_out_is_known_without_the_library(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("out of memory"),
        OSError(28, "No space left on device"),
        RuntimeError("shape mismatch"),
        error_of("torch", "AcceleratorError", RuntimeError, "CUDA error: an illegal memory access"),
        error_of("psycopg.errors", "OutOfMemory", Exception, "out of memory"),
        Unspeakable(),
        caused_by(KeyError("x")),
    ],
    ids=lambda error: f"{type(error).__module__}.{type(error).__name__}",
)
def test_other_errors_are_none(error: Exception) -> None:
    """Another machine's memory, such as a database's, doesn't grow by smaller batches."""
    assert not is_out_of_memory(error)


def test_an_error_that_is_its_own_cause_ends_the_search() -> None:
    error = ValueError()
    error.__cause__ = error

    assert not is_out_of_memory(error)


def fill(limit: BatchSizeLimit) -> int:
    """Run full batches until the limit grows; return how many that took."""
    batches = 1
    while not limit.fitted(limit.size):
        batches += 1
    return batches


def test_what_ran_out_is_halved_down_to_one() -> None:
    limit = BatchSizeLimit(32)
    sizes = []
    while limit.size > 1:
        limit.ran_out(limit.size)
        sizes.append(limit.size)

    assert sizes == [16, 8, 4, 2, 1]


def test_the_limit_grows_slowly_and_not_beyond_the_batch_size() -> None:
    limit = BatchSizeLimit(20)
    limit.ran_out(16)
    sizes = [limit.size]
    while limit.size < 20:
        assert fill(limit) == 20
        sizes.append(limit.size)

    assert sizes == [8, 10, 12, 15, 18, 20]
    assert not limit.fitted(20)


def test_a_batch_smaller_than_the_limit_proves_nothing() -> None:
    limit = BatchSizeLimit(16)
    limit.ran_out(16)

    assert not any(limit.fitted(7) for _ in range(1000))
    assert limit.size == 8


def test_a_larger_size_that_didnt_fit_is_tried_again_ever_more_seldom() -> None:
    limit = BatchSizeLimit(8)
    limit.ran_out(8)
    taken = []
    for _ in range(7):
        taken.append(fill(limit))
        limit.ran_out(2 * 4)

    assert taken == [20, 40, 80, 160, 320, 320, 320]
