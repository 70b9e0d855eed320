"""Diffusion mathematics: levels, schedules, samplers, guidance. No network lives here."""
