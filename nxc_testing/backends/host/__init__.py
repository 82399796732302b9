"""What backends make on this host themselves, without an engine: shared by those that do."""
