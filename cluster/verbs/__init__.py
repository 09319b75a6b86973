"""Groups of verbs of the command line, one a module."""
