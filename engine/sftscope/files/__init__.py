"""Files that this program did not write, or that others may have changed: opened, bounded and parsed in one place.

`opening`: only regular files, never one that blocks or grows, no link that leaves its folder. `json_text`, `toml_text`:
values that are not too deep, with numbers that fit. `safetensors_header`: the names, types and shapes of a weight file,
without its weights.
Each function returns a checked value or raises one line (SftscopeError); OSError stays OSError, because a disk that
cannot be read says nothing about the file on it.
"""
