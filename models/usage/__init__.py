"""Token usage: events as reported, figures as counted, timelines as read."""
