"""The one error that users see. The command line turns it into a line on stderr and exit code 1, or 3."""


class SftscopeError(Exception):
    """What was given, where, what was expected and what to do, in one line.

    Raise it for anything that a user can fix: a file, a field, a label, a checkpoint. A bug in
    sftscope itself is not one and keeps its traceback.
    """


class NotReadError(SftscopeError):
    """A file that could not be read now, by the machine's doing: nothing is known of its content. Exit code 3.

    Whoever meets it never calls the file damaged, and never recomputes, overwrites or deletes because of it.
    """
