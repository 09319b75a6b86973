"""`python -m cluster` is `deltah`."""

from cluster.cli import main

main()
