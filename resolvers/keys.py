"""API keys: list, mint, revoke."""

from auth.permissions import signed_in
from graph.context import Info
from graph.keys import ApiKey, CreateApiKeyInput, CreateApiKeyPayload, RevokeApiKeyInput, RevokeApiKeyPayload
from graph.language import nodes
from graph.language.describe import object_type
from graph.language.guards import mutation, query
from models import keys


@object_type
class KeyQueries:
    """What can be asked about API keys."""

    @query(allow=signed_in)
    async def api_keys(self, info: Info) -> list[ApiKey] | None:
        """List your API keys, everybody's for an admin; newest first, at most 1,000."""
        viewer = info.context.viewer
        return [ApiKey.of(row) for row in await keys.of_owner(None if viewer.is_admin else viewer.user)]


@object_type
class KeyMutations:
    """What can be changed about API keys."""

    @mutation(allow=signed_in)
    async def create_api_key(self, info: Info, input: CreateApiKeyInput) -> CreateApiKeyPayload | None:
        """Mint an API key. Its secret is in this answer and nowhere else."""
        context = info.context
        row, secret = await context.services.minting.mint(
            context.viewer,
            name=input.name,
            scopes=input.scopes,
            expires_at=input.expires_at,
            agent=input.agent.ref("agent") if input.agent else None,
            now=context.now,
        )
        return CreateApiKeyPayload(api_key=ApiKey.of(row), secret=secret)

    @mutation(allow=signed_in)
    async def revoke_api_key(self, info: Info, input: RevokeApiKeyInput) -> RevokeApiKeyPayload | None:
        """Revoke an API key of yours, of anybody's for an admin. Within a second it is refused everywhere."""
        viewer = info.context.viewer
        row = await keys.revoke(
            nodes.decode(input.id, "ApiKey"), only_owner=None if viewer.is_admin else viewer.user, now=info.context.now
        )
        return RevokeApiKeyPayload(api_key=ApiKey.of(row))
