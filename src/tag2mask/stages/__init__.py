"""The stages of a run, one short file each; ``pipeline`` is the page to read first."""
