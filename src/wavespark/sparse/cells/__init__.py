"""Visible cells: the value, its layout, and what is computed on it.

Start with `value`, then `layout`, then `forms/halo`.
"""
