"""slmlab: a notebook-first laboratory for spoken language models of languages with little recorded speech."""

__version__ = "0.1.0"
