"""Pipelines that think: conflicting contexts, legal chains, argument concepts, the tool-calling loop."""
