"""``torchrun -m scpalm.training.cli``."""

from scpalm.training.cli.main import main

if __name__ == "__main__":
    main()
