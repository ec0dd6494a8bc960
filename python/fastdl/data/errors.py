"""The errors that reading and fetching data raise."""

import os


class DataError(ValueError):
    """A file or folder does not hold what it should.

    Attributes
    ----------
    path : str
        The file or folder.
    expected, got : str
        What should be there, and what is.
    """

    def __init__(self, path: str | os.PathLike, expected: str, got: str):
        super().__init__(os.fspath(path), expected, got)
        self.path, self.expected, self.got = os.fspath(path), expected, got

    def __str__(self) -> str:
        return f"{self.path}: expected {self.expected}; got {self.got}"


class MissingDataError(DataError):
    """A data set is not where it was looked for."""


class FetchError(OSError):
    """No mirror gave the right file; the message lists every address tried and why it failed."""
