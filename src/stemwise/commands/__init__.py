"""The verbs of the command line, one file a family. Nothing here imports torch or numpy before a verb runs."""
