"""Modules and functions for both kinds of sparse value, typed so that the result is of the kind
that was given.

A layer looks at the kind of its argument and calls the arithmetic of `cells` or `voxels`. Nothing
is registered and nothing is looked up by name.
"""
