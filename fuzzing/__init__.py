"""Tries every reader on damaged inputs: `python -m fuzzing`; see docs/reliability.md."""
