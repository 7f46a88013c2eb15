"""Runs from checkpoints that other trainers wrote: found, judged, copied, extracted."""
