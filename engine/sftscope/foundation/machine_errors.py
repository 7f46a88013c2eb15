"""What the machine does to long work, as one line: a full disk, no memory, a device that is gone.

Knows the libraries' errors by their words and names, so that it imports none of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text

_MEMORY = ("can't allocate memory", "out of memory", "not enough memory", "Cannot allocate memory", "bad_alloc")
_DISK = ("(os error ", "StorageFull", "PytorchStreamWriter", "file write failed")  # safetensors, torch.save
_DEVICE = ("CUDA error", "CUDA driver", "cuBLAS", "CUBLAS_", "CUDNN_", "NCCL", "HIP error")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory for something, on whatever device."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _MEMORY)


@contextmanager
def told_in_one_line(work: str, in_memory: str) -> Iterator[None]:
    """Turn what the machine did to `work` into a SftscopeError; anything else passes as it is.

    in_memory: what takes the memory, and which setting makes it less.
    """
    try:
        yield
    except SftscopeError:
        raise
    except Exception as error:  # sorted below; what is not the machine's doing is raised again
        said = safe_text(str(error).strip().partition("\n")[0], max_length=200)
        kept = "what is finished is kept, and the same command resumes"
        if is_out_of_memory(error):
            raise SftscopeError(f"{work}: out of memory; {in_memory}; {kept}") from error
        if any(words in str(error) for words in _DEVICE):
            raise SftscopeError(f"{work}: the device failed: {said}; {kept}") from error
        if isinstance(error, OSError) and error.errno is not None:
            file = f"{safe_text(str(error.filename))}: " if error.filename else ""
            raise SftscopeError(f"{work}: {file}{error.strerror or said}; fix this; {kept}") from error
        if any(words in str(error) for words in _DISK):
            raise SftscopeError(
                f"{work}: a file cannot be written: {said}; fix this, such as a full disk; {kept}"
            ) from error
        raise
