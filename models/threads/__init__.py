"""Conversations of agents: threads, their messages, how these are delivered, and how they are stopped."""
