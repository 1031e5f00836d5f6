"""What a run did, for people: one HTML page, figures for papers, a few words in the terminal.

Everything here is made from the run folder: its journal and JSON files, and the .hirelc files as `hirelc show` sees them.
"""
