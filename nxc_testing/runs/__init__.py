"""Runs of this host: whose they are, what they have, and how all of it goes away.

Nothing is imported here: the reaper, which lives beside every run, is to be small.
"""
