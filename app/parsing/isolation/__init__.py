"""What a parser process gives up before it reads an upload: files, network and programs, by landlock and seccomp.

In: the folders that it may use. Out: what the kernel lacks. Called by the child; the service asks what is missing.
"""
