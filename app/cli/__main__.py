"""``python -m scpalm.app.cli``."""

from scpalm.app.cli.main import main

if __name__ == "__main__":
    main()
