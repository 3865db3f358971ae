"""``python -m scpalm.app.cli``."""

from scpalm.app.cli.main import main

main()
