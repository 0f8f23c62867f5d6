"""Volumes to a store: RAS, one voxel size, values, foreground box; chunked, checksummed; and the
store opened."""

from typing import TYPE_CHECKING

from wavespark.lazy import callable_package, lazy_exports

if TYPE_CHECKING:
    from wavespark.prepare.recipe import Recipe, load_recipe, recipe_names
    from wavespark.prepare.report import PrepareReport
    from wavespark.prepare.run import prepare
    from wavespark.prepare.splits import held_out
    from wavespark.prepare.store import Damage, Store, open_store
    from wavespark.prepare.stored import StoredVolume
    from wavespark.prepare.workers import Limits

__all__ = [
    "Damage",
    "Limits",
    "PrepareReport",
    "Recipe",
    "Store",
    "StoredVolume",
    "held_out",
    "load_recipe",
    "open_store",
    "prepare",
    "recipe_names",
]

__getattr__, __dir__ = lazy_exports(__name__)
callable_package(__name__, "prepare")
