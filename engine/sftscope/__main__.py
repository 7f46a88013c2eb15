"""`python -m sftscope`: the command line, where the console script is not on the PATH."""

from sftscope_tui.cli import main

if __name__ == "__main__":  # workers import this module again, under another name
    main()
