"""The quality lab; see __main__.py."""
