"""Operators of large language models: one folder an operator, a reference and its faster implementations.

Importing this package imports no torch; an operator's module does.
"""

from __future__ import annotations
