"""Files and atlases without a server: a file in, the same file with results out, streamed through the engine.

Used by the command line. Imports the engine and nothing of the service.
"""
