"""The command ``scpalm-train``: arguments in; files, tables and messages out. Nothing imports it."""
