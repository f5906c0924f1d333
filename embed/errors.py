"""The errors a user can meet. Each is one line that says what, where and what to do, and carries its exit code.

`embed.commands.main` prints the line and exits with the code; `--debug` adds the traceback. The codes follow sysexits.h.
"""


class EmbedError(Exception):
    """Base of all errors that are the user's to act on."""

    exit_code = 1

    def __str__(self) -> str:
        """Returns one line, also where the error quotes what has several."""
        return " ".join(super().__str__().splitlines())


class UsageError(EmbedError):
    """The command line cannot be carried out as given."""

    exit_code = 64


class DataError(EmbedError):
    """Bad input: a file, record, checkpoint or bundle that must not be used as it is."""

    exit_code = 65


class NotHere(DataError):
    """None of the files of a source is on this machine."""


class EndpointError(EmbedError):
    """A language model's endpoint cannot be reached, refuses, or never gives what it is asked for."""

    exit_code = 69


class NumericError(EmbedError):
    """Training or averaging met values that are not finite."""

    exit_code = 70


class StorageError(EmbedError):
    """The disk is full, a folder is in use, or a write failed."""

    exit_code = 74


class InUse(StorageError):
    """Another process holds the folder or file."""


class Preempted(EmbedError):
    """The run was asked to stop; its state is saved, and the same command goes on from there."""

    exit_code = 75


class HostLost(EmbedError):
    """Another host of the run is lost or stuck; started again, all go on from the last checkpoint."""

    exit_code = 75


class ConfigError(EmbedError):
    """A gin file or binding is wrong."""

    exit_code = 78


class DoesNotFit(ConfigError):
    """A batch that no number of micro-batches makes small enough for the memory of a device."""


def did_you_mean(name: str, known) -> str:
    """Returns '; did you mean X?' for the nearest of `known`, or '; known: ...' when none is near."""
    import difflib

    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(known)}" if known else ""
