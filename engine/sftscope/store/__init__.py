"""The store: run folders and step files. h5py is used here and nowhere else."""

from sftscope.files.atomic import write_atomically
from sftscope.store.run_folder import RunFolder
from sftscope.store.steps.step_file import read_step_file
from sftscope.store.steps.step_record import (
    Effects,
    NewerFormatError,
    NoReaderError,
    Pairs,
    Sample,
    SparseEffects,
    StepFileError,
    StepRecord,
    TooSlowError,
)

__all__ = [
    "Effects",
    "NewerFormatError",
    "NoReaderError",
    "Pairs",
    "RunFolder",
    "Sample",
    "SparseEffects",
    "StepFileError",
    "StepRecord",
    "TooSlowError",
    "read_step_file",
    "write_atomically",
]
