"""The Model Context Protocol: the verbs of the API as tools of an agent.

    protocol     messages: JSON-RPC, and what two eras of the protocol demand of it
    json_schema  JSON Schema of the API's serializers
    text         results as text for a language model, stored text marked as data
    shapes       what tools take, and what they give where the API has no shape for it
    tools        the tools, each one serializer in, one function, one serializer out
    views        /api/mcp

One POST is one message and one answer: no session, no stream, no second server.
"""
