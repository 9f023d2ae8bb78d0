"""`python -m deerflow_replica` is the command line."""

from .cli import main

main()
