"""Jobs in front of a model: a bounded queue, micro-batches, deadlines and a breaker.

    engine     submits, batches and scores jobs on threads of its own
    jobs       one request's pairs, its deadline and its future
    batching   which pairs go through the model together
    breaker    stops asking a model that is slow or sick
    cost       how long work will take, learnt from how long it took
    failures   what a failure is called in logs

Imports `rerank.backends`, `rerank.metrics` and `rerank.outcomes`; no settings.
"""
