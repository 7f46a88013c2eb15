"""One HDF5 file per checkpoint: its format, its writer, and its reader in a child process."""
