"""The online half of scPaLM: a service, its workers and the command line.

Request bytes come in, cells run on the device, answer bytes go out. Imports `scpalm.model`, never `scpalm.training`.
"""
