"""The store: run folders and step files. h5py is used here and nowhere else."""

from engine.store.atomic import write_atomically
from engine.store.run_folder import RunFolder
from engine.store.step_file import read_step_file
from engine.store.step_record import Effects, Pairs, Sample, SparseEffects, StepFileError, StepRecord

__all__ = [
    "Effects",
    "Pairs",
    "RunFolder",
    "Sample",
    "SparseEffects",
    "StepFileError",
    "StepRecord",
    "read_step_file",
    "write_atomically",
]
