"""Ratios that tag2mask has to keep, each measured in one run against the work it is compared with."""
