"""mem0's HTTP API, as its own client sends it: another way to the same verbs.

    filters   mem0's filters as ours, and the one user whom a call is about
    ids       memories' and events' ids, which tell a service's calls by id whose memory they are about
    shapes    what calls take
    answers   what they are answered
    messages  a conversation as a document: one message, one chunk
    base      the views' base: reads who the user is before anything is done
    views     the calls about many memories of a user
    by_id     the calls about memories by their ids
    urls      addresses under /api/mem0/

Texts are stored as they are given: no language model reads them.
"""
