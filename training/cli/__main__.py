"""``torchrun -m scpalm.training.cli``."""

from scpalm.training.cli.main import main

main()
