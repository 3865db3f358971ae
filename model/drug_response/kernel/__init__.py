"""The kernel head: profiles of any platform and mutation calls in; ln IC50 relative to training lines out.

Called by the session of the head, and by training, which fits it.
"""
