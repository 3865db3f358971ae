"""Train the kernel head: tables in; a `KernelHead`, its intervals and a bundle with it out.

Called by the command line and by evaluation.
"""
