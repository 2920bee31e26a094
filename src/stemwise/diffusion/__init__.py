"""The diffusion core: tensors only, it has never heard of music.

schedules -> denoisers -> constraints (hard evidence), guidance (soft evidence) -> sampling.
"""
