"""``python -m midsource``: the command line."""

from midsource.cli.main import main

main()
