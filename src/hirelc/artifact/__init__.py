"""Bytes on disk: the .hirelc file."""
