"""What we use of libraries beyond what they promise to keep: one module a library, one test of its contract each.

Everything else calls public names only (ruff's SLF001 sees to that outside this folder). When a release renames
something, the fix belongs here.
"""
