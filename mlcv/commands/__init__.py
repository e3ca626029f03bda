"""The command line's verbs: each a function for Python, and a thin `main` over it."""
