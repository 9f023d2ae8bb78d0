"""What LangGraph's savers do not offer, on the tables of those that are known."""
