"""Three small agents that run on AgentHub, and a tour of what it does with them: `python -m examples`."""
