"""The command line `scpalm`: turns arguments into files or a running service. Nothing else imports this package."""
