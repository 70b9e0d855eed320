"""The web studio: a server on this machine, and the pages that it serves."""
