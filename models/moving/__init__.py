"""Moving in from the registry that AgentHub replaces."""
