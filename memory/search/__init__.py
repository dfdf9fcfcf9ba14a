"""A question in, the best chunks out.

    retrieval     the walk: embed, find candidates, open their seals, rerank
    matches       what an answer holds
    question      a question as the database is asked it, and the weights of a score
    filters       which of a user's rows are asked
    route         chooses exact scan or index search by the tenant's size
    exact_scan    compares a question with every row of one user
    graph_search  candidates of a large tenant, from the vector graph and the postings
    ranking_sql   the last steps of both searches: scores, neighbours, the sealed rows of the best
    reranking     the cross-encoder's order, where there is one

Imports `index`, `tenancy`, `sealing`, `memory.rls` and `rerank`; no other room.
"""
