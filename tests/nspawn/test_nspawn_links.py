"""Cutting containers' networks, and ports from the host."""

# ruff: noqa: F403

from links import *
