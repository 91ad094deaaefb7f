"""The company in figures, for admins."""

from auth.permissions import admins
from graph.context import Info
from graph.language.describe import object_type
from graph.language.guards import query
from graph.statistics import Statistics
from models.usage import days


@object_type
class StatisticsQueries:
    """What can be asked about the company as a whole."""

    # Two thousand: what a company's fleet of agents takes to add up.
    @query(allow=admins, weight=2000)
    async def statistics(self, info: Info) -> Statistics | None:
        """Give the company in figures."""
        return Statistics(today=days.today(info.context.now, info.context.services.zone))
