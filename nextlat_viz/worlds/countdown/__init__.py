"""Countdown: combine given numbers into a target, one equation after another."""
