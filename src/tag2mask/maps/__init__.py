"""Localization maps: merged over scales and mirror images, stored compressed."""
