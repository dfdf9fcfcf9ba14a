"""A query in, the best chunks out.

    retrieval          the walk: embed, find candidates, open their seals, rerank
    matches            what is found, still sealed, and what an answer holds
    filters            the scope of a query: which of the user's rows are searched
    conditions         filters as a client writes them, and as SQL
    search_parameters  what one tenant's rows are searched for, and the weights of a score
    candidates         chooses exact scan or index search by the tenant's size
    exact_scan         compares a query with every row of one user
    time_questions     the span of time that a question names, and the lift of what happened then
    narrowing          rows that a narrow scope leaves a large tenant, found by an index
    graph_search       candidates of a large tenant, from the vector graph and the postings
    ranking_sql        the last steps of both searches: scores, neighbours, the sealed rows of the best
    answer_bytes       keeps an answer within its bytes
    scoped_rows        the rows of a scope as a list has them, without any question
    surroundings       the chunks around a match, on demand
    reranking          the cross-encoder's order, where there is one

Imports `index`, `tenancy`, `sealing`, `memory.rls` and `rerank`; no other room.
"""
