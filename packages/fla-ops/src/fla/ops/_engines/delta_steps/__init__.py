"""The delta rules, one step at a time: for decoding, and for the recurrent form of the families on ``delta``."""
