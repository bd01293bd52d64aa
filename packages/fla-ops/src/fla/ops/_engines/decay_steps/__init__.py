"""Any decay, one step at a time: per head, per key channel, per value channel, with or without a bonus.

For decoding, and for the recurrent form of every family whose state decays.
"""
