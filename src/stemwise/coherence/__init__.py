"""Do two parts of a song belong together?"""
