"""Agents out of a spreadsheet."""

from auth import permissions
from auth.permissions import managers
from graph.context import Info
from graph.language.describe import object_type
from graph.language.guards import mutation
from graph.sheets import ImportAgentsInput, ImportAgentsPayload
from models import imports
from models.imports import Importer


@object_type
class SheetMutations:
    """What a sheet can change."""

    @mutation(allow=managers)
    async def import_agents(self, info: Info, input: ImportAgentsInput) -> ImportAgentsPayload | None:
        """Register and change agents by name, as the rows of a sheet say; ratings and usage are never touched.

        Each row is allowed what you are: your own agents, any for an admin or a key with scope MANAGE; owners are
        said by admins alone. Sending the same sheet twice changes nothing the second time.
        """
        viewer = info.context.viewer
        importer = Importer(person=viewer.user, only_owner=permissions.owner_limit(viewer), may_assign=viewer.is_admin)
        results = await imports.run(input.csv, importer, dry=input.dry_run, now=info.context.now)
        return ImportAgentsPayload.of(results)
