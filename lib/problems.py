"""What can be wrong before work starts: each is one clear sentence for the user, never a
traceback.
"""


class Problem(ValueError):
    """Something the user must change."""


class ModelProblem(Problem):
    """The checkpoint cannot be used: missing, pickled, truncated, of the wrong shape or kind."""


class ConfigProblem(Problem):
    """The config is well-formed but asks for something that cannot be done."""
