"""What can go wrong, told in one line: what we got, what we need, what to do.

Each class carries the exit code that the command line ends with; nothing else in the
library knows about exit codes.
"""


class TilesegmentError(Exception):
    """Base of every error that a user can answer."""

    exit_code = 1


class InputError(TilesegmentError):
    """The image cannot be used: absent, of another format, damaged, or holding invalid pixels."""


class ModelError(TilesegmentError):
    """The model file cannot be used, or does not fit the image."""


class OptionError(TilesegmentError):
    """An option has a value that cannot work here."""

    exit_code = 2


class ClusterError(TilesegmentError):
    """The workers cannot be had: no GPU, no scheduler at that address, or they died."""


class OutputError(TilesegmentError):
    """The output cannot be written: it exists already, or the disk is full."""


class OutputBusyError(OutputError):
    """Another run is writing the output."""


class OutputConflictError(OutputError):
    """The output belongs to another model, image or configuration."""

    exit_code = 3


class StoreError(TilesegmentError):
    """An object store refuses: no such bucket, no credentials, expired ones, or no permission."""


class VerificationError(TilesegmentError):
    """Labels that were computed again are not those that are stored."""


class IncompleteError(TilesegmentError):
    """The run stopped before every tile was done; what is done is kept for the next run."""

    exit_code = 4


class QuarantineError(IncompleteError):
    """Some tiles failed everywhere; all others are done and kept."""

    exit_code = 5


class PreemptedError(IncompleteError):
    """A batch system asked the run to stop; what is done is kept for the next run."""

    exit_code = 75


class UnexpectedError(TilesegmentError):
    """Something that nobody foresaw, on a worker; told by its type and first line."""
