"""Errors that a user can act on: one sentence with what failed, which file, and what to do next."""


class DfilError(Exception):
    """Base of every error that the command line prints as one line instead of a traceback."""


class DataError(DfilError):
    """A dataset tree, a video or a crop store is not what it should be."""


class RunError(DfilError):
    """A training run, its settings or its weights are not what they should be."""
