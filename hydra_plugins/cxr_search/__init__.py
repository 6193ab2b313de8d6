"""The place where Hydra looks for sweepers: it takes none from outside of `hydra_plugins`."""

from cxr.search import sweeper


class SearchSweeper(sweeper.SearchSweeper):
    """See cxr.search.sweeper."""
