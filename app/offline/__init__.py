"""Process files and atlases without a server: a file comes in, a copy with the results goes out.

Used by the command line. Imports the engine, but nothing of the service.
"""
